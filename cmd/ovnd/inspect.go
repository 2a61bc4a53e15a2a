package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/template"

	"github.com/docker/cli/templates"
)

const inspectFormatHelp = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`

const listFormatHelp = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`

// An object is one thing to inspect: typed for templates, and as the node
// sent it, so that fields which this client does not know are shown too.
type object struct {
	typed any
	raw   json.RawMessage
}

// inspect prints the objects that get finds for refs, and then reports those
// that it did not find.
func inspect(ctx context.Context, c *cli, refs []string, format string, get func(context.Context, string) (object, error)) error {
	write, err := newObjectWriter(format)
	if err != nil {
		return &exitError{exitBadFormat, err.Error()}
	}
	var objects []object
	var missing []error
	for _, ref := range refs {
		o, err := get(ctx, ref)
		if err != nil {
			missing = append(missing, errors.New(c.explain(err)))
			continue
		}
		objects = append(objects, o)
	}
	if err := write(c.out, objects); err != nil {
		missing = append(missing, err)
	}
	return errors.Join(missing...)
}

// newObjectWriter understands what `inspect --format` takes: "" is indented
// JSON, "json" is JSON on one line, anything else is a Go template.
func newObjectWriter(format string) (func(io.Writer, []object) error, error) {
	switch format {
	case "":
		return func(w io.Writer, objects []object) error { return writeJSON(w, objects, "    ") }, nil
	case "json":
		return func(w io.Writer, objects []object) error { return writeJSON(w, objects, "") }, nil
	}
	tmpl, err := templates.Parse(format)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return func(w io.Writer, objects []object) error {
		for _, o := range objects {
			if err := executeTemplate(w, tmpl, o); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func writeJSON(w io.Writer, objects []object, indent string) error {
	raws := make([]json.RawMessage, 0, len(objects))
	for _, o := range objects {
		raws = append(raws, o.raw)
	}
	var line, out bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(raws); err != nil {
		return fmt.Errorf("the node's answer is not JSON: %w", err)
	}
	if indent == "" {
		out = line
	} else if err := json.Indent(&out, line.Bytes(), "", indent); err != nil {
		return err
	}
	_, err := out.WriteTo(w)
	return err
}

// executeTemplate tries the typed object and then, for field names that only
// the JSON has, the raw one.
func executeTemplate(w io.Writer, tmpl *template.Template, o object) error {
	var out bytes.Buffer
	if tmpl.Execute(&out, o.typed) != nil {
		var fields any
		dec := json.NewDecoder(bytes.NewReader(o.raw))
		dec.UseNumber() // an ID or counter must not become 1.7e+09
		if err := dec.Decode(&fields); err != nil {
			return fmt.Errorf("the node's answer is not JSON: %w", err)
		}
		out.Reset()
		if err := tmpl.Option("missingkey=error").Execute(&out, fields); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
	}
	out.WriteByte('\n')
	_, err := out.WriteTo(w)
	return err
}
