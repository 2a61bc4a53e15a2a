// Package report keeps the results of benchmarks and shows them: as a table for
// a terminal, as JSON, as lines for benchstat, as plots, as one HTML page and
// as a section of a README.
//
// A [Report] is what one run measured, round by round. Everything else (medians,
// ratios, whether a figure is noisy) is computed from it when it is shown, so a
// report that was written yesterday is shown and compared with today's rules.
//
// # Rounds and pairs
//
// A run measures all subjects in turn, round after round. What is measured in
// one round shares the state of the machine, so a ratio of two subjects is made
// of each round by itself, and the median of these ratios is what is shown: a
// machine that is half as fast in one round does not move it.
//
// # The JSON
//
// schema.json describes it (JSON Schema, draft 2020-12); [Report] and the types
// below it have the meaning and the unit of each field. Times are RFC 3339,
// durations seconds. [SchemaV1] names the version: a field may be added under
// the same name, nothing else may change.
package report
