package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/opts"
	"github.com/docker/cli/templates"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newEventsCommand(c *cli) *cobra.Command {
	filter := opts.NewFilterOpt()
	var o client.EventsListOptions
	var format string
	cmd := &cobra.Command{
		Use:   "events [OPTIONS]",
		Short: "Get real time events from the server",
		Example: `  ovnd events --filter type=network
  ovnd events --since 10m --until 0s --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tmpl, err := eventTemplate(format)
			if err != nil {
				return &exitError{exitBadFormat, "Error parsing format: " + err.Error()}
			}
			api, err := c.docker()
			if err != nil {
				return err
			}
			o.Filters = filter.Value()
			return printEvents(c.out, api.Events(cmd.Context(), o), tmpl)
		},
	}
	flags := cmd.Flags()
	flags.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	flags.StringVar(&format, "format", "", inspectFormatHelp)
	flags.StringVar(&o.Since, "since", "", "Show all events created since timestamp")
	flags.StringVar(&o.Until, "until", "", "Stream events until this timestamp")
	return cmd
}

// eventTemplate is nil for the default output. A template is tried on an empty
// event, so that a wrong field is known now and not with the first event.
func eventTemplate(format string) (*template.Template, error) {
	switch format {
	case "":
		return nil, nil
	case formatter.JSONFormatKey:
		format = formatter.JSONFormat
	}
	tmpl, err := templates.Parse(format)
	if err != nil {
		return nil, err
	}
	return tmpl, tmpl.Execute(io.Discard, &events.Message{})
}

func printEvents(w io.Writer, res client.EventsResult, tmpl *template.Template) error {
	for {
		select {
		case event := <-res.Messages:
			if err := printEvent(w, event, tmpl); err != nil {
				return err
			}
		case err := <-res.Err:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func printEvent(w io.Writer, event events.Message, tmpl *template.Template) error {
	if tmpl != nil {
		if err := tmpl.Execute(w, event); err != nil {
			return err
		}
		fmt.Fprintln(w)
		return nil
	}
	when := time.Unix(event.Time, 0)
	if event.TimeNano != 0 {
		when = time.Unix(0, event.TimeNano)
	}
	var attributes []string
	for _, k := range slices.Sorted(maps.Keys(event.Actor.Attributes)) {
		attributes = append(attributes, k+"="+event.Actor.Attributes[k])
	}
	line := fmt.Sprintf("%s %s %s %s", when.Format("2006-01-02T15:04:05.000000000Z07:00"), event.Type, event.Action, event.Actor.ID)
	if len(attributes) > 0 {
		line += " (" + strings.Join(attributes, ", ") + ")"
	}
	_, err := fmt.Fprintln(w, line)
	return err
}
