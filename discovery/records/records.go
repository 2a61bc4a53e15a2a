// Package records holds the messages that discovery gossips about endpoints,
// generated from records.proto. They say nothing about whether what they hold
// is valid; package discovery checks that.
package records

//go:generate go build -o protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
//go:generate protoc --plugin=protoc-gen-go -I ../.. --go_out=../.. --go_opt=paths=source_relative discovery/records/records.proto
//go:generate rm protoc-gen-go
