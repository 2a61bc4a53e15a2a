package bench

import (
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/report"
)

// Names of the subjects.
const (
	Veth        = "veth"
	Kernel      = "kernel"
	WireGuard   = "wireguard"
	Slirp4netns = "slirp4netns"
	Pasta       = "pasta"
	Nebula      = "nebula"
	Ovnd        = "ovnd"
	OvndChaCha  = "ovnd-chacha20-poly1305"
	OvndAES     = "ovnd-aes-256-gcm"
	OvndLocal   = "ovnd-local"
	OvndVIP     = "ovnd-vip"
	OvndVIPVia  = "ovnd-vip-proxy"
	OvndEgress  = "ovnd-egress"
	OvndProxy   = "ovnd-proxy"
	OvndPort    = "ovnd-port"
)

// A subjectSpec is something that can be measured.
type subjectSpec struct {
	name, title string
	kind        string // report.KindOvnd …
	sealed      bool
	program     string // that it needs; "" for none
	build       func(*plane) error
}

// subjects are all of them, what others are compared with first.
var subjects = []subjectSpec{
	{Veth, "bare veth", report.KindKernel, false, "", (*plane).buildVeth},
	{Kernel, "kernel VXLAN", report.KindKernel, false, "", (*plane).buildKernel},
	{WireGuard, "wireguard-go", report.KindPeer, true, "", (*plane).buildWireGuard},
	{Nebula, "nebula", report.KindPeer, true, "nebula", (*plane).buildNebula},
	{Slirp4netns, "slirp4netns", report.KindPeer, false, "slirp4netns", (*plane).buildSlirp},
	{Pasta, "pasta", report.KindPeer, false, "pasta", (*plane).buildPasta},
	{Ovnd, "ovnd, plain", report.KindOvnd, false, "", (*plane).buildOvnd},
	{OvndChaCha, "ovnd, ChaCha20-Poly1305", report.KindOvnd, true, "", (*plane).buildChaCha},
	{OvndAES, "ovnd, AES-256-GCM", report.KindOvnd, true, "", (*plane).buildAES},
	{OvndLocal, "ovnd, one node", report.KindOvnd, false, "", (*plane).buildLocal},
	{OvndVIP, "ovnd, one node, by way of a VIP, direct", report.KindOvnd, false, "", (*plane).buildVIP},
	{OvndVIPVia, "ovnd, one node, by way of a VIP, proxied", report.KindOvnd, false, "", (*plane).buildProxiedVIP},
	{OvndEgress, "ovnd, by way of the gateway", report.KindOvnd, false, "", (*plane).buildEgress},
	{OvndProxy, "ovnd, by way of the proxy", report.KindOvnd, false, "", (*plane).buildProxy},
	{OvndPort, "ovnd, to a port without TUN", report.KindOvnd, false, "", (*plane).buildPort},
}

// Baselines are the subjects that others may be compared with.
func Baselines() []string {
	return names(func(s subjectSpec) bool { return s.kind != report.KindOvnd })
}

// Own are the subjects that are ovnd's, in all its ways.
func Own() []string { return names(func(s subjectSpec) bool { return s.kind == report.KindOvnd }) }

func names(want func(subjectSpec) bool) (out []string) {
	for _, s := range subjects {
		if want(s) {
			out = append(out, s.name)
		}
	}
	return out
}

func findSubject(name string) (subjectSpec, bool) {
	i := slices.IndexFunc(subjects, func(s subjectSpec) bool { return s.name == name })
	if i < 0 {
		return subjectSpec{}, false
	}
	return subjects[i], true
}

// missing returns the program that the subject needs and that is not installed,
// "" if there is none.
func (s subjectSpec) missing() string {
	if s.program == "" {
		return ""
	}
	if _, err := exec.LookPath(s.program); err != nil {
		return s.program
	}
	return ""
}

// version says which version of the subject this machine has, "" if that is this
// program's own.
func (s subjectSpec) version() string {
	switch {
	case s.kind == report.KindKernel:
		var name unix.Utsname
		if unix.Uname(&name) == nil {
			return unix.ByteSliceToString(name.Release[:])
		}
	case s.name == WireGuard:
		return moduleVersion("golang.zx2c4.com/wireguard")
	case s.program != "":
		return programVersion(s.program)
	}
	return ""
}

func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return ""
}

// programVersion returns the first word with a digit that the program prints when
// it is asked.
func programVersion(program string) string {
	out, err := exec.Command(program, "--version").Output()
	if err != nil {
		out, _ = exec.Command(program, "-version").Output() // Go's flags
	}
	for word := range strings.FieldsSeq(string(out)) {
		if strings.ContainsAny(word, "0123456789") && !strings.Contains(word, program) {
			return word
		}
	}
	return ""
}
