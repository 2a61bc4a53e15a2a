package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

const (
	maxJSON   = 16 << 20 // bytes of a report: a run of hours has a fraction of it
	maxString = 4096     // bytes of any text in it
)

// Read reads a report in JSON and validates it. Summaries and ratios in it are
// dropped: they follow from the rounds.
func Read(r io.Reader) (*Report, error) {
	limited := &io.LimitedReader{R: r, N: maxJSON + 1}
	dec := json.NewDecoder(limited)
	report := new(Report)
	err := dec.Decode(report)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			err = errors.New("more than one JSON value")
		}
	}
	switch {
	case limited.N <= 0:
		return nil, fmt.Errorf("report of more than %d MiB", maxJSON>>20)
	case err != nil:
		return nil, fmt.Errorf("report: %w", err)
	}
	for i := range report.Benchmarks {
		for j := range report.Benchmarks[i].Results {
			res := &report.Benchmarks[i].Results[j]
			res.Summary, res.Ratios = nil, nil
		}
	}
	return report, report.Validate()
}

// Write validates the report, computes its summaries and ratios and writes it
// as indented JSON.
func (r *Report) Write(w io.Writer) error {
	if err := r.Validate(); err != nil {
		return err
	}
	r.summarise()
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// Validate checks that the report is what the types say: names that exist and
// are unique, directions and kinds that are known, numbers that are finite.
func (r *Report) Validate() error {
	if r.Schema != SchemaV1 {
		return fmt.Errorf("report: schema is %q, want %q", r.Schema, SchemaV1)
	}
	if err := sound(reflect.ValueOf(r)); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	subjects := make(map[string]bool, len(r.Subjects))
	for _, s := range r.Subjects {
		if err := s.validate(subjects); err != nil {
			return fmt.Errorf("report: subject %q: %w", s.Name, err)
		}
		subjects[s.Name] = true
	}
	seen := make(map[string]bool, len(r.Benchmarks))
	for i := range r.Benchmarks {
		b := &r.Benchmarks[i]
		if seen[b.Key()] {
			return fmt.Errorf("report: %s: twice", b.Key())
		}
		seen[b.Key()] = true
		if err := b.validate(subjects); err != nil {
			return fmt.Errorf("report: %s: %w", b.Key(), err)
		}
	}
	return nil
}

func (s *Subject) validate(seen map[string]bool) error {
	switch {
	case !isToken(s.Name):
		return errNotToken
	case seen[s.Name]:
		return errors.New("twice")
	case s.Kind != KindOvnd && s.Kind != KindKernel && s.Kind != KindPeer:
		return fmt.Errorf("unknown kind %q", s.Kind)
	}
	return nil
}

func (b *Benchmark) validate(subjects map[string]bool) error {
	if !isToken(b.Group) || !isToken(b.Name) {
		return fmt.Errorf("group and name: %w", errNotToken)
	}
	for k, v := range b.Params {
		if !isToken(k) || !isToken(v) {
			return fmt.Errorf("parameter %q: %w", k, errNotToken)
		}
	}
	if _, ok := b.Params[b.Varies]; b.Varies != "" && !ok {
		return fmt.Errorf("varies by %q, which is no parameter", b.Varies)
	}
	if len(b.Metrics) == 0 {
		return errors.New("no metrics")
	}
	metrics := make(map[string]bool, len(b.Metrics))
	for _, m := range b.Metrics {
		switch {
		case !isToken(m.Name) || metrics[m.Name]:
			return fmt.Errorf("metric %q: not a unique name", m.Name)
		case m.Unit == "" || strings.ContainsFunc(m.Unit, unicode.IsSpace):
			return fmt.Errorf("metric %q: unit %q", m.Name, m.Unit)
		case m.Better != HigherIsBetter && m.Better != LowerIsBetter && m.Better != Informative:
			return fmt.Errorf("metric %q: unknown direction %q", m.Name, m.Better)
		}
		metrics[m.Name] = true
	}
	seen := make(map[string]bool, len(b.Results))
	for _, res := range b.Results {
		if !subjects[res.Subject] || seen[res.Subject] {
			return fmt.Errorf("result of %q: not a subject, or twice", res.Subject)
		}
		seen[res.Subject] = true
		if err := res.validate(metrics); err != nil {
			return fmt.Errorf("%s: %w", res.Subject, err)
		}
	}
	return nil
}

func (res *Result) validate(metrics map[string]bool) error {
	last := -1
	for _, round := range res.Rounds {
		if round.Round <= last {
			return fmt.Errorf("round %d after round %d", round.Round, last)
		}
		last = round.Round
		if err := round.validate(metrics); err != nil {
			return fmt.Errorf("round %d: %w", round.Round, err)
		}
	}
	return nil
}

func (round *Round) validate(metrics map[string]bool) error {
	for name := range round.Values {
		if !metrics[name] {
			return fmt.Errorf("unknown metric %q", name)
		}
	}
	for _, in := range round.Intervals {
		if !metrics[in.Metric] || in.Seconds <= 0 {
			return fmt.Errorf("intervals of %q of %g s", in.Metric, in.Seconds)
		}
	}
	if round.Latency == nil {
		return nil
	}
	last := Percentile{Value: math.Inf(-1)}
	for _, p := range round.Latency.Percentiles {
		if p.Percent <= last.Percent || p.Percent > 100 || p.Value < last.Value {
			return errors.New("percentiles do not ascend from above 0 to at most 100")
		}
		last = p
	}
	return nil
}

var errNotToken = errors.New(`empty, too long, or with blanks, "/" or "="`)

// isToken reports whether s can be a part of a benchmark's name for benchstat.
func isToken(s string) bool {
	return s != "" && len(s) <= 128 &&
		!strings.ContainsFunc(s, func(c rune) bool { return c == '/' || c == '=' || unicode.IsSpace(c) })
}

// sound reports numbers that JSON cannot hold and texts that would do more on a
// terminal than be read.
func sound(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Float64:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("%g is not a finite number", f)
		}
	case reflect.String:
		s := v.String()
		if len(s) > maxString || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
			return fmt.Errorf("%.64q is too long or not printable", s)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			return sound(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				continue // of a time.Time
			}
			if err := sound(v.Field(i)); err != nil {
				return err
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if err := sound(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if err := errors.Join(sound(it.Key()), sound(it.Value())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Key names the benchmark: group, name and parameters, as in
// "path/tcp1/mtu=1500/workers=2". Two runs are compared by it.
func (b *Benchmark) Key() string { return b.key("") }

// key is Key without one parameter.
func (b *Benchmark) key(without string) string {
	parts := []string{b.Group, b.Name}
	for _, k := range slices.Sorted(maps.Keys(b.Params)) {
		if k != without {
			parts = append(parts, k+"="+b.Params[k])
		}
	}
	return strings.Join(parts, "/")
}

// result returns what the benchmark gave on a subject, nil if it did not run.
func (b *Benchmark) result(subject string) *Result {
	for i := range b.Results {
		if b.Results[i].Subject == subject {
			return &b.Results[i]
		}
	}
	return nil
}

// subject returns the subject of that name, which a valid report has.
func (r *Report) subject(name string) *Subject {
	for i := range r.Subjects {
		if r.Subjects[i].Name == name {
			return &r.Subjects[i]
		}
	}
	return &Subject{Name: name}
}

// label is what people call the subject.
func (s *Subject) label() string {
	if s.Title != "" {
		return s.Title
	}
	return s.Name
}

// label heads the metric's column.
func (m *Metric) label() string {
	if m.Title != "" {
		return m.Title
	}
	return m.Unit
}
