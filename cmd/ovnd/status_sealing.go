package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"

	"github.com/ovnd/ovnd/api/types"
)

// printSessions shows with whom the packets of encrypted networks are sealed,
// and why not with the others.
func printSessions(w io.Writer, peers []types.PeerState) {
	begun := false
	for _, p := range peers {
		for _, s := range p.Sessions {
			if !begun {
				fmt.Fprintln(w, "\nSEALED WITH\tADDRESS\tNODE ID\tPOLICY\tCIPHER\tEPOCH\tKEYS\tAUTHENTICATED\tOPENED\tSEALED")
				begun = true
			}
			at := p.IP
			if s.IP.IsValid() {
				at = s.IP // it may have moved since gossip told of it
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", p.Name, at, s.NodeID, s.Policy, session(s))
		}
	}
}

// session is the part of a row that depends on whether there is one.
func session(s types.Session) string {
	if !s.Established {
		return "none: " + s.Reason
	}
	return fmt.Sprintf("%s\t%d\t%s old\t%s ago\t%d\t%d", s.Cipher, s.Epoch, seconds(s.Age), seconds(s.Authenticated), s.RxPackets, s.TxPackets)
}

func seconds(s float64) string {
	return strings.ToLower(units.HumanDuration(time.Duration(s * float64(time.Second))))
}

// printSealing shows what sessions are made with.
func printSealing(w io.Writer, s *types.Sealing) {
	if s == nil {
		return
	}
	what := "ready"
	if s.Error != "" {
		what = s.Error
	}
	epochs := make([]string, 0, len(s.Epochs))
	for _, e := range s.Epochs {
		epochs = append(epochs, strconv.FormatUint(e, 10))
	}
	if len(epochs) > 0 {
		what += fmt.Sprintf(", keys of the epochs %s, first tried %d", strings.Join(epochs, ", "), s.Primary)
	}
	fmt.Fprintf(w, "Sealing:\t%s\n", what)
	if len(s.Revoked) > 0 {
		fmt.Fprintf(w, "Removed nodes:\t%s\n", strings.Join(s.Revoked, ", "))
	}
}
