// Readme writes the results of one run into the generated section of a document:
//
//	ovnd bench path --baseline kernel,wireguard --json >run.json
//	go run ./bench/report/readme run.json README.md
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/ovnd/ovnd/bench/report"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "readme:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: readme RUN.json DOCUMENT.md")
	}
	in, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer in.Close()
	r, err := report.Read(in)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	doc, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	var section bytes.Buffer
	if err := r.WriteMarkdown(&section); err != nil {
		return err
	}
	updated, err := report.ReplaceSection(doc, section.Bytes())
	if err != nil {
		return fmt.Errorf("%s: %w", args[1], err)
	}
	return os.WriteFile(args[1], updated, 0o666)
}
