package report

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v5"
)

const tokenPattern = `^[^\s/=]{1,128}$`

// constraints are what the types do not say by themselves.
var constraints = map[string]map[string]any{
	"Report.schema":           {"const": SchemaV1},
	"Subject.name":            {"pattern": tokenPattern},
	"Subject.kind":            {"enum": []string{KindOvnd, KindKernel, KindPeer}},
	"Benchmark.group":         {"pattern": tokenPattern},
	"Benchmark.name":          {"pattern": tokenPattern},
	"Benchmark.params":        {"propertyNames": map[string]any{"pattern": tokenPattern}},
	"Benchmark.metrics":       {"minItems": 1},
	"Metric.name":             {"pattern": tokenPattern},
	"Metric.unit":             {"pattern": `^\S+$`},
	"Metric.better":           {"enum": []string{HigherIsBetter, LowerIsBetter, Informative}},
	"Round.round":             {"minimum": 0},
	"Latency.count":           {"minimum": 1},
	"Percentile.percent":      {"exclusiveMinimum": 0, "maximum": 100},
	"Intervals.seconds":       {"exclusiveMinimum": 0},
	"Settings.underlay":       {"enum": []string{"ipv4", "ipv6"}},
	"Spread.n":                {"minimum": 1},
	"Ratio.p":                 {"minimum": 0, "maximum": 1},
	"Machine.memory_bytes":    {"minimum": 0},
	"Machine.cores":           {"minimum": 1},
	"Settings.rounds":         {"minimum": 1},
	"Run.seconds":             {"minimum": 0},
	"Latency.lost":            {"minimum": 0},
	"Settings.mtu":            {"minimum": 0},
	"Subject.mtu":             {"minimum": 0},
	"Machine.load_before":     {"minimum": 0},
	"Machine.load_after":      {"minimum": 0},
	"Settings.window_seconds": {"minimum": 0},
}

// schema makes the JSON Schema of the types, with their comments.
type schema struct {
	t        *testing.T
	comments map[string]string // by "Type" and "Type.Field"
	defs     map[string]any
}

func newSchema(t *testing.T) []byte {
	t.Helper()
	s := &schema{t: t, comments: comments(t), defs: map[string]any{}}
	root := map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "Results of ovnd bench",
		"$ref":    s.ref(reflect.TypeFor[Report]())["$ref"],
		"$defs":   s.defs,
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(root); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// ref defines a struct and returns a reference to it.
func (s *schema) ref(typ reflect.Type) map[string]any {
	name := typ.Name()
	if _, ok := s.defs[name]; !ok {
		properties, required := map[string]any{}, []string{}
		s.defs[name] = nil // ends recursion
		s.fields(typ, properties, &required)
		s.defs[name] = map[string]any{
			"type": "object", "description": s.comments[name], "properties": properties, "required": required,
		}
	}
	return map[string]any{"$ref": "#/$defs/" + name}
}

func (s *schema) fields(typ reflect.Type, properties map[string]any, required *[]string) {
	for f := range typ.Fields() {
		if f.Anonymous {
			s.fields(f.Type, properties, required)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			s.t.Errorf("%s.%s has no name in JSON", typ.Name(), f.Name)
		}
		p := s.property(f.Type)
		if c := s.comments[typ.Name()+"."+f.Name]; c != "" {
			p["description"] = c
		}
		maps.Copy(p, constraints[typ.Name()+"."+name])
		properties[name] = p
		if options != "omitempty" {
			*required = append(*required, name)
		}
	}
}

func (s *schema) property(typ reflect.Type) map[string]any {
	if typ == reflect.TypeFor[time.Time]() {
		return map[string]any{"type": "string", "format": "date-time"}
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return s.property(typ.Elem())
	case reflect.Struct:
		return s.ref(typ)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": s.property(typ.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": s.property(typ.Elem())}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return map[string]any{"type": "integer"}
	}
	s.t.Fatalf("no schema for %s", typ)
	return nil
}

// comments are those of this package's types and their fields.
func comments(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	files, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			decl, ok := n.(*ast.GenDecl)
			if !ok || decl.Tok != token.TYPE {
				return true
			}
			for _, spec := range decl.Specs {
				typ := spec.(*ast.TypeSpec)
				out[typ.Name.Name] = oneLine(decl.Doc)
				if fields, ok := typ.Type.(*ast.StructType); ok {
					for _, f := range fields.Fields.List {
						for _, name := range f.Names {
							out[typ.Name.Name+"."+name.Name] = oneLine(f.Doc) + oneLine(f.Comment)
						}
					}
				}
			}
			return true
		})
	}
	return out
}

func oneLine(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

// schema.json is what the types and their comments say: run with -update after
// changing them.
func TestSchemaIsOfTheTypes(t *testing.T) {
	golden(t, "../schema.json", newSchema(t))
}

func compile(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.Draft = jsonschema.Draft2020
	c.AssertFormat = true
	if err := c.AddResource("schema.json", bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOutputIsOfTheSchema(t *testing.T) {
	schema := compile(t)
	var out bytes.Buffer
	if err := example().Write(&out); err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(doc); err != nil {
		t.Fatalf("%#v", err)
	}
	for what, spoil := range map[string]func(){
		"schema":  func() { doc["schema"] = "ovnd-bench/v0" },
		"machine": func() { delete(doc, "machine") },
		"kind":    func() { doc["subjects"].([]any)[0].(map[string]any)["kind"] = "magic" },
		"metrics": func() { doc["benchmarks"].([]any)[0].(map[string]any)["metrics"] = []any{} },
		"value": func() {
			result := doc["benchmarks"].([]any)[0].(map[string]any)["results"].([]any)[0].(map[string]any)
			result["rounds"].([]any)[0].(map[string]any)["values"].(map[string]any)["throughput"] = "fast"
		},
	} {
		doc = nil
		if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		spoil()
		if schema.Validate(doc) == nil {
			t.Errorf("a spoiled %s is of the schema", what)
		}
	}
}
