package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/v2/daemon/server/httpstatus"
	"github.com/moby/moby/v2/daemon/server/httputils"

	"github.com/ovnd/ovnd/api/types"
)

func post(body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", jsonType)
	return r
}

// FuzzCreateRequest: bodies of POST /networks/create. What is accepted has a
// name and says the same when it is sent again; all else is status 400.
func FuzzCreateRequest(f *testing.F) {
	f.Add(`{"Name":"ngx_net","Driver":"overlay","Attachable":true,"IPAM":{"Driver":"default","Config":[{"Subnet":"10.10.19.0/16","Gateway":"10.10.0.1","IPRange":"10.10.1.0/24","AuxiliaryAddresses":{"a":"10.10.0.9"}}]},"Options":{"encrypted":""},"Labels":{"a":"b"}}`)
	f.Add(`{"Name":"x","IPAM":{"Config":[{"Subnet":"fd00::/64"},{"Subnet":"1.2.3.4/33"}]}}`)
	f.Add(`{"Name":" ","IPAM":null}`)
	f.Add(`{"name":"x","ipam":{"config":[null,{}]},"EnableIPv6":true,"ConfigFrom":{"Network":"y"}}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, body string) {
		req, err := readCreateRequest(post(body))
		if err != nil {
			if status := httpstatus.FromError(err); status != http.StatusBadRequest {
				t.Fatalf("status %d: %v", status, err)
			}
			return
		}
		if strings.TrimSpace(req.Name) == "" {
			t.Fatal("accepted without a name")
		}
		again := sameBytes(t, req)
		req2, err := readCreateRequest(post(again))
		if err != nil {
			t.Fatalf("%s was accepted, what it was understood as is not: %s: %v", body, again, err)
		}
		if got := sameBytes(t, req2); got != again {
			t.Fatalf("understood as %s, and that as %s", again, got)
		}
	})
}

func sameBytes(t *testing.T, req network.CreateRequest) string {
	b, err := json.Marshal(req)
	if err != nil {
		t.Fatalf("accepted what cannot be encoded: %v", err)
	}
	return string(b)
}

// FuzzAttachRequest: bodies of POST /ovnd/attach. What is accepted keeps the
// bounds that gossip records and the kernel set.
func FuzzAttachRequest(f *testing.F) {
	f.Add(`{"Name":"web","Hostname":"web.example","Networks":[{"Target":"ngx_net","IP":"10.10.0.7","Aliases":["a","b"]}]}`)
	f.Add(`{"Networks":[{"Target":"a"},{"Target":"a"}]}`)
	f.Add(`{"Networks":[{"Target":"a","IP":"fe80::1%eth0"}]}`)
	f.Add(`{"Networks":null}`)
	f.Fuzz(func(t *testing.T, body string) {
		var req types.AttachRequest
		err := httputils.ReadJSON(post(body), &req)
		if err == nil {
			err = CheckAttach(req)
		}
		if err != nil {
			if !cerrdefs.IsInvalidArgument(err) {
				t.Fatalf("class of error: %v", err)
			}
			return
		}
		if len(req.Hostname) > maxHostname || len(req.Networks) == 0 || len(req.Networks) > maxAttachNetworks {
			t.Fatalf("accepted %+v", req)
		}
		for _, n := range req.Networks {
			if all := strings.Join(n.Aliases, ""); n.Target == "" || len(all) > maxAliasBytes || strings.ContainsAny(all, " \n\x00/") {
				t.Fatalf("accepted network %+v", n)
			}
		}
	})
}

// FuzzFilters: the filters of lists, prune and events. No term may fail or
// hold up a match.
func FuzzFilters(f *testing.F) {
	f.Add(`{"name":{"a":true},"label":{"a=b":true}}`)
	f.Add(`{"name":["(a*)*b","[["],"dangling":["1"],"type":["custom"]}`)
	f.Add(`{"until":{"10m":true},"label!":{"x":false}}`)
	f.Add(`{"network":["x"],"event":["create"]}`)
	f.Fuzz(func(t *testing.T, param string) {
		n := network.Network{ID: usedID, Name: "plain_net", Driver: "overlay", Scope: "swarm", Labels: map[string]string{"a": "b"}, Created: time.Unix(1, 0)}
		match, err := networkFilter(param)
		if err == nil {
			match(n, true)
		} else if !cerrdefs.IsInvalidArgument(err) {
			t.Fatalf("class of error: %v", err)
		}
		prune, err := pruneFilter(param, time.Unix(2, 0))
		if err == nil {
			prune(n)
		} else if !cerrdefs.IsInvalidArgument(err) {
			t.Fatalf("class of error: %v", err)
		}
		r := httptest.NewRequest(http.MethodGet, "/events", nil)
		q := r.URL.Query()
		q.Set("filters", param)
		r.URL.RawQuery = q.Encode()
		events, err := parseEventQuery(r, time.Unix(2, 0))
		if err == nil {
			events.match(created("plain_net"))
		} else if !cerrdefs.IsInvalidArgument(err) {
			t.Fatalf("class of error: %v", err)
		}
	})
}

// FuzzParseTime: times of since, until and the until filter.
func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"10m", "1700000000.5", "2026-11-22T10:00:00Z", "2026-11-22", "-1h", "0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := parseTime(s, time.Unix(2, 0)); err != nil && !got.IsZero() {
			t.Fatalf("parseTime(%q) = %v with an error", s, got)
		}
	})
}
