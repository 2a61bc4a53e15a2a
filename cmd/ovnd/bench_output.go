package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ovnd/ovnd/bench/report"
)

// A benchOutput says what becomes of a report.
type benchOutput struct {
	asJSON, benchstat bool
	dir               string // "": none
	compare           string // an older report's file; "": none

	old *report.Report // what compare holds
}

func (o *benchOutput) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&o.asJSON, "json", false, "Print the report in JSON format")
	flags.BoolVar(&o.benchstat, "benchstat", false, "Print lines that benchstat reads")
	flags.StringVar(&o.dir, "out", "", "Write the report into this folder too: JSON, an HTML page, plots as SVG and PNG")
	flags.StringVar(&o.compare, "compare", "", "Compare with this older report (JSON)")
	cmd.MarkFlagsMutuallyExclusive("json", "benchstat")
}

// prepare finds out early what would fail in the end.
func (o *benchOutput) prepare() (err error) {
	if o.dir != "" {
		if err := os.MkdirAll(o.dir, 0o777); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	if o.compare != "" {
		if o.old, err = readReport(o.compare); err != nil {
			return fmt.Errorf("--compare: %w", err)
		}
	}
	return nil
}

// write shows the report as asked for.
func (o *benchOutput) write(c *cli, r *report.Report) error {
	if o.dir != "" {
		if err := o.writeDir(r); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	var err error
	switch {
	case o.asJSON:
		err = r.Write(c.out)
	case o.benchstat:
		err = r.WriteBenchstat(c.out)
	default:
		err = r.WriteTable(c.out)
	}
	if err != nil || o.old == nil {
		return err
	}
	to := c.out
	if o.asJSON || o.benchstat {
		to = c.err // the output is for a program
	}
	fmt.Fprintln(to)
	return report.Compare(o.old, r).WriteTable(to)
}

func (o *benchOutput) writeDir(r *report.Report) error {
	if _, err := r.WritePlots(o.dir); err != nil {
		return err
	}
	return errors.Join(
		writeTo(filepath.Join(o.dir, "report.json"), r.Write),
		writeTo(filepath.Join(o.dir, "report.txt"), r.WriteTable),
		writeTo(filepath.Join(o.dir, "benchstat.txt"), r.WriteBenchstat),
		writeTo(filepath.Join(o.dir, "report.html"), func(w io.Writer) error { return r.WriteHTML(w, o.old) }),
	)
}

func writeTo(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
