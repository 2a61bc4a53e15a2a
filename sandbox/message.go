package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// protocolVersion is that of the messages between init and node. An init
// outlives its node, whose successor may be another version of ovnd: it
// accepts what it knows and answers Gone to the rest.
const protocolVersion = 2

// An attachMessage is the first thing that an init says on a connection. Its
// descriptors are those of all queues, the first interface's first, then the
// resolver's UDP and TCP sockets, then the command's pidfd.
type attachMessage struct {
	Version    int          `json:"version"`
	ID         string       `json:"id"`
	Token      string       `json:"token"`
	Interfaces []Interface  `json:"interfaces"`
	Resolver   bool         `json:"resolver,omitempty"` // its two sockets are there
	State      commandState `json:"state"`
}

// A commandState says how far a sandbox's command is.
type commandState struct {
	Started time.Time   `json:"started,omitzero"`
	PIDFD   bool        `json:"pidfd,omitempty"` // a descriptor of the command is there
	Exit    *ExitStatus `json:"exit,omitempty"`  // nothing runs any more
}

// An ExitStatus is how a process ended.
type ExitStatus struct {
	Code       int       `json:"code"`             // 128 + Signal if a signal ended it
	Signal     int       `json:"signal,omitempty"` // 0: it ended by itself
	Error      string    `json:"error,omitempty"`  // why it did not start, or what was done to it
	FinishedAt time.Time `json:"finished_at"`
}

func (a *attachMessage) descriptors() int {
	n := 0
	for i := range a.Interfaces {
		n += a.Interfaces[i].Queues
	}
	if a.Resolver {
		n += resolverSockets
	}
	if a.State.PIDFD {
		n++
	}
	return n
}

// parseAttach decodes and checks an attachMessage that came with n descriptors.
func parseAttach(b []byte, n int) (attachMessage, error) {
	var m attachMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return attachMessage{}, fmt.Errorf("decode attach message: %w", err)
	}
	if m.Version != protocolVersion {
		return attachMessage{}, fmt.Errorf("%w: it speaks version %d of the sandbox protocol, the node speaks %d",
			ErrGone, m.Version, protocolVersion)
	}
	if err := validateID(m.ID); err != nil {
		return attachMessage{}, err
	}
	if m.Token == "" || len(m.Token) > maxToken {
		return attachMessage{}, errors.New("token is missing or too long")
	}
	if err := validateInterfaces(m.Interfaces); err != nil {
		return attachMessage{}, err
	}
	if want := m.descriptors(); want != n {
		return attachMessage{}, fmt.Errorf("%d descriptors announced, %d descriptors sent", want, n)
	}
	return m, nil
}

type eventKind string

// What an attached init says to its node.
const (
	eventStarted    eventKind = "started"     // the command runs: Time, its pidfd
	eventExited     eventKind = "exited"      // nothing runs any more: Exit; wants an ack
	eventExecuted   eventKind = "executed"    // Exec runs: its pidfd
	eventExecFailed eventKind = "exec-failed" // Exec does not: Exit has code and error
	eventExecExited eventKind = "exec-exited" // Exec ended: Exit
)

type initMessage struct {
	Kind eventKind   `json:"kind"`
	Exec uint64      `json:"exec,omitempty"`
	Time time.Time   `json:"time,omitzero"`
	Exit *ExitStatus `json:"exit,omitempty"`
}

// parseInitMessage decodes and checks an initMessage that came with n descriptors.
func parseInitMessage(b []byte, n int) (m initMessage, err error) {
	if err := json.Unmarshal(b, &m); err != nil {
		return initMessage{}, fmt.Errorf("decode message of an init: %w", err)
	}
	var exec, exit bool
	pidfds := 0
	switch m.Kind {
	case eventStarted:
		pidfds = 1
	case eventExecuted:
		exec, pidfds = true, 1
	case eventExited:
		exit = true
	case eventExecFailed, eventExecExited:
		exec, exit = true, true
	default:
		return initMessage{}, fmt.Errorf("message of an init has unknown kind %q", m.Kind)
	}
	if exec != (m.Exec != 0) || exit != (m.Exit != nil) || n != pidfds {
		return initMessage{}, fmt.Errorf("message %q of an init lacks a part, or has one too many", m.Kind)
	}
	return m, nil
}

type nodeKind string

// What a node says to an init. The first answers its attachMessage.
const (
	nodeAttached nodeKind = "attached" // the devices are connected
	nodeRefused  nodeKind = "refused"  // not now; at first contact: not at all
	nodeGone     nodeKind = "gone"     // the node does not know the sandbox, and never will
	nodeGoodbye  nodeKind = "goodbye"  // the node is going down for good
	nodeExec     nodeKind = "exec"     // run Command as Exec: its standard files come along
	nodeSignal   nodeKind = "signal"   // send Signal to Exec, or to the command
	nodeStop     nodeKind = "stop"     // the same, and kill everything after Grace
	nodeAck      nodeKind = "ack"      // the node has the exit status
)

type nodeMessage struct {
	Kind    nodeKind      `json:"kind"`
	Text    string        `json:"text,omitempty"` // says why
	Exec    uint64        `json:"exec,omitempty"`
	Signal  int           `json:"signal,omitempty"`
	Grace   time.Duration `json:"grace,omitempty"`
	Command *execCommand  `json:"command,omitempty"`
}

// An execCommand is what to execute. Its strings are bytes, since JSON's must
// be UTF-8.
type execCommand struct {
	Args [][]byte `json:"args"`
	Env  [][]byte `json:"env,omitempty"`
	Dir  []byte   `json:"dir,omitempty"`
	TTY  bool     `json:"tty,omitempty"`
}

const stdFiles = 3

// maxSignal is the kernel's _NSIG.
const maxSignal = 64

// parseNodeMessage decodes and checks a nodeMessage that came with n descriptors.
func parseNodeMessage(b []byte, n int) (m nodeMessage, err error) {
	if err := json.Unmarshal(b, &m); err != nil {
		return nodeMessage{}, fmt.Errorf("decode message of the node: %w", err)
	}
	files := 0
	valid := m.Command == nil
	switch m.Kind {
	case nodeAttached, nodeRefused, nodeGone, nodeGoodbye, nodeAck:
	case nodeSignal, nodeStop:
		valid = valid && m.Signal > 0 && m.Signal <= maxSignal && m.Grace >= 0
	case nodeExec:
		valid = m.Exec != 0 && m.Command != nil && len(m.Command.Args) > 0
		files = stdFiles
	default:
		return nodeMessage{}, fmt.Errorf("message of the node has unknown kind %q", m.Kind)
	}
	if !valid || n != files {
		return nodeMessage{}, fmt.Errorf("message %q of the node lacks a part, or has one too many", m.Kind)
	}
	return m, nil
}

func toBytes(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, s := range list {
		out[i] = []byte(s)
	}
	return out
}

func toStrings(list [][]byte) []string {
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = string(b)
	}
	return out
}

type controlKind string

// What an init says to its Run, or to its Child.
const (
	controlNotice  controlKind = "notice"  // Text is for the user's eyes
	controlReady   controlKind = "ready"   // a task's init runs
	controlFailed  controlKind = "failed"  // the command did not start: Code, Text
	controlNoProc  controlKind = "noproc"  // /proc cannot be mounted; nothing was started
	controlStopped controlKind = "stopped" // the command stopped by Signal
	controlExited  controlKind = "exited"  // the command ended: Code, Signal, Terminal
)

// What a Run says to its init.
const (
	controlSignal controlKind = "signal" // send Signal to the command
	controlResume controlKind = "resume" // continue the command, with the Terminal if set
	controlEnd    controlKind = "end"    // end the command
)

// A controlMessage travels between Run and the init it started, which are the
// same binary: it has no version.
type controlMessage struct {
	Kind   controlKind `json:"kind"`
	Code   int         `json:"code,omitempty"`
	Signal int         `json:"signal,omitempty"`
	// Terminal in exited: the terminal's foreground is a process group of the
	// sandbox. In resume: make it the command's.
	Terminal bool   `json:"terminal,omitempty"`
	Text     string `json:"text,omitempty"`
}
