package report

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"
)

func encode(t testing.TB, r *Report) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := r.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestReadsWhatItWrote(t *testing.T) {
	got, err := Read(bytes.NewReader(encode(t, example())))
	if err != nil {
		t.Fatal(err)
	}
	if want := example(); !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
}

// Summaries in a file are not believed.
func TestSummariesAreComputedAnew(t *testing.T) {
	text := bytes.Replace(encode(t, example()), []byte(`"median": 36.195`), []byte(`"median": 99`), 1)
	if bytes.Equal(text, encode(t, example())) {
		t.Fatal("nothing to spoil")
	}
	r, err := Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(encode(t, r), encode(t, example())) {
		t.Error("a false median survives")
	}
}

func TestValidate(t *testing.T) {
	for what, spoil := range map[string]func(*Report){
		"no schema":                func(r *Report) { r.Schema = "" },
		"subject twice":            func(r *Report) { r.Subjects[1].Name = "veth" },
		"subject with a blank":     func(r *Report) { r.Subjects[0].Name = "raw veth" },
		"unknown kind":             func(r *Report) { r.Subjects[0].Kind = "magic" },
		"escape sequence":          func(r *Report) { r.Subjects[0].Title = "\x1b[2J" },
		"long text":                func(r *Report) { r.Notes = []string{strings.Repeat("x", 5000)} },
		"benchmark twice":          func(r *Report) { r.Benchmarks = append(r.Benchmarks, r.Benchmarks[0]) },
		"group with a slash":       func(r *Report) { r.Benchmarks[0].Group = "a/b" },
		"parameter with a blank":   func(r *Report) { r.Benchmarks[0].Params = map[string]string{"mtu": "1 500"} },
		"varies by nothing":        func(r *Report) { r.Benchmarks[0].Varies = "size" },
		"no metrics":               func(r *Report) { r.Benchmarks[0].Metrics = nil },
		"metric twice":             func(r *Report) { r.Benchmarks[0].Metrics[1].Name = "throughput" },
		"metric without unit":      func(r *Report) { r.Benchmarks[0].Metrics[0].Unit = "" },
		"metric without direction": func(r *Report) { r.Benchmarks[0].Metrics[0].Better = "" },
		"unknown subject":          func(r *Report) { r.Benchmarks[0].Results[0].Subject = "nobody" },
		"result twice":             func(r *Report) { r.Benchmarks[0].Results[1].Subject = "veth" },
		"rounds not ascending":     func(r *Report) { r.Benchmarks[0].Results[0].Rounds[1].Round = 0 },
		"unknown metric":           func(r *Report) { r.Benchmarks[0].Results[0].Rounds[0].Values["speed"] = 1 },
		"infinite value":           func(r *Report) { r.Benchmarks[0].Results[0].Rounds[0].Values["throughput"] = math.Inf(1) },
		"no number":                func(r *Report) { r.Machine.LoadBefore = math.NaN() },
		"intervals of nothing":     func(r *Report) { r.Benchmarks[0].Results[0].Rounds[0].Intervals[0].Metric = "speed" },
		"intervals without length": func(r *Report) { r.Benchmarks[0].Results[0].Rounds[0].Intervals[0].Seconds = 0 },
		"percentile above 100":     func(r *Report) { r.Benchmarks[2].Results[0].Rounds[0].Latency.Percentiles[0].Percent = 101 },
		"percentiles descend":      func(r *Report) { r.Benchmarks[2].Results[0].Rounds[0].Latency.Percentiles[1].Value = 0 },
	} {
		r := example()
		spoil(r)
		if err := r.Validate(); err == nil {
			t.Errorf("%s: valid", what)
		}
		if err := r.Write(new(bytes.Buffer)); err == nil {
			t.Errorf("%s: written", what)
		}
	}
	if err := example().Validate(); err != nil {
		t.Error(err)
	}
}

func TestReadRefuses(t *testing.T) {
	whole := string(encode(t, example()))
	for what, text := range map[string]string{
		"nothing":         "",
		"no JSON":         "hello",
		"cut short":       whole[:len(whole)/2],
		"two":             whole + whole,
		"something after": whole + "x",
		"another JSON":    `{"schema": 1, "samples": []}`,
		"null":            "null",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s: read", what)
		}
	}
	if _, err := Read(&endless{}); err == nil || !strings.Contains(err.Error(), "MiB") {
		t.Errorf("endless: %v", err)
	}
}

// endless is white space without end.
type endless struct{}

func (*endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// What is read is valid, is written as it is read, and can be shown.
func FuzzRead(f *testing.F) {
	small := example() // large seeds make the fuzzer spend its time on shrinking them
	small.Benchmarks = small.Benchmarks[1:2]
	for i := range small.Benchmarks[0].Results {
		res := &small.Benchmarks[0].Results[i]
		res.Rounds = res.Rounds[:1]
	}
	f.Add(encode(f, small))
	f.Add([]byte(`{"schema":"ovnd-bench/v1"}`))
	f.Add([]byte(`{"schema":"ovnd-bench/v1","subjects":[{"name":"a","kind":"ovnd","baseline":true},{"name":"b","kind":"kernel"}],
"benchmarks":[{"group":"g","name":"n","params":{"x":"1"},"varies":"x","metrics":[{"name":"m","unit":"u","better":"lower"}],
"results":[{"subject":"a","rounds":[{"round":0,"values":{"m":-1e308}}]},{"subject":"b","rounds":[{"round":0,"values":{"m":1e-308}}]}]},
{"group":"g","name":"n","params":{"x":"2e9"},"varies":"x","metrics":[{"name":"m","unit":"u","better":"lower"}],
"results":[{"subject":"a","rounds":[{"round":0,"values":{"m":5},"latency":{"count":1,"percentiles":[{"percent":50,"value":1},{"percent":99,"value":2}]},
"intervals":[{"metric":"m","seconds":1e-9,"values":[1,2,3]}]}]}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		again, err := Read(bytes.NewReader(encode(t, r)))
		if err != nil {
			t.Fatalf("does not read what it wrote: %v", err)
		}
		for name, write := range map[string]func(*Report, *bytes.Buffer) error{
			"table":      func(r *Report, b *bytes.Buffer) error { return r.WriteTable(b) },
			"benchstat":  func(r *Report, b *bytes.Buffer) error { return r.WriteBenchstat(b) },
			"Markdown":   func(r *Report, b *bytes.Buffer) error { return r.WriteMarkdown(b) },
			"comparison": func(r *Report, b *bytes.Buffer) error { return Compare(r, r).WriteTable(b) },
			"page":       func(r *Report, b *bytes.Buffer) error { return r.WriteHTML(b, nil) },
		} {
			var one, two bytes.Buffer
			if err := write(r, &one); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := write(again, &two); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
				t.Errorf("%s differs after writing and reading: %v", name, err)
			}
		}
	})
}
