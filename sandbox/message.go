package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
)

// protocolVersion is that of the messages between init and node. An init
// outlives its node, whose successor may be another version of ovnd: it
// accepts what it knows and answers Gone to the rest.
const protocolVersion = 1

// An attachMessage is what an init says to the node, once a connection, with
// the descriptors of all queues: those of the first interface first.
type attachMessage struct {
	Version    int         `json:"version"`
	ID         string      `json:"id"`
	Token      string      `json:"token"`
	Interfaces []Interface `json:"interfaces"`
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
	queues := 0
	for i := range m.Interfaces {
		queues += m.Interfaces[i].Queues
	}
	if queues != n {
		return attachMessage{}, fmt.Errorf("%d queues announced, %d descriptors sent", queues, n)
	}
	return m, nil
}

type nodeAnswer string

// What a node says to an init.
const (
	nodeAttached nodeAnswer = "attached" // the devices are connected
	nodeRefused  nodeAnswer = "refused"  // not now; at first contact: not at all
	nodeGone     nodeAnswer = "gone"     // the node does not know the sandbox, and never will
	nodeGoodbye  nodeAnswer = "goodbye"  // the node is going down for good
)

type nodeMessage struct {
	Answer nodeAnswer `json:"answer"`
	Text   string     `json:"text,omitempty"` // says why
}

type controlKind string

// What an init says to its Run.
const (
	controlNotice  controlKind = "notice"  // Text is for the user's eyes
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
