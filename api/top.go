package api

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/v2/daemon/server/httputils"
)

// top lists a container's processes as ps(1) would, from /proc.
func (a *containerAPI) top(_ context.Context, w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	columns, err := parsePS(r.URL.Query().Get("ps_args"))
	if err != nil {
		return err
	}
	c, err := a.findRunning(vars["name"])
	if err != nil {
		return err
	}
	pids, err := a.backend.ContainerProcesses(c.ID)
	if err != nil {
		return err
	}
	now := time.Now()
	resp := container.TopResponse{Titles: []string{}, Processes: [][]string{}}
	for _, col := range columns {
		resp.Titles = append(resp.Titles, col.title)
	}
	slices.Sort(pids)
	for _, pid := range pids {
		p, err := readProcess(pid, now)
		if err != nil {
			continue // it has ended in between
		}
		row := make([]string, 0, len(columns))
		for _, col := range columns {
			row = append(row, col.value(p))
		}
		resp.Processes = append(resp.Processes, row)
	}
	a.events.Publish(ContainerEvent(c, events.ActionTop, nil))
	return httputils.WriteJSON(w, http.StatusOK, resp)
}

// A psColumn is one column of the list.
type psColumn struct {
	title string
	value func(psProcess) string
}

// psProcess is a process as /proc shows it.
type psProcess struct {
	pid, ppid int
	state     string
	user      string
	name      string // of the program, at most 15 bytes
	args      string
	tty       string
	cpu       time.Duration // user and system time
	started   time.Time
	age       time.Duration
	vsz, rss  int64 // KiB
	cpuShare  float64
	memShare  float64
}

var psColumns = map[string]psColumn{
	"user":    {"USER", func(p psProcess) string { return p.user }},
	"uid":     {"UID", func(p psProcess) string { return p.user }},
	"pid":     {"PID", func(p psProcess) string { return strconv.Itoa(p.pid) }},
	"ppid":    {"PPID", func(p psProcess) string { return strconv.Itoa(p.ppid) }},
	"c":       {"C", func(p psProcess) string { return strconv.Itoa(int(p.cpuShare)) }},
	"%cpu":    {"%CPU", func(p psProcess) string { return fmt.Sprintf("%.1f", p.cpuShare) }},
	"%mem":    {"%MEM", func(p psProcess) string { return fmt.Sprintf("%.1f", p.memShare) }},
	"vsz":     {"VSZ", func(p psProcess) string { return strconv.FormatInt(p.vsz, 10) }},
	"rss":     {"RSS", func(p psProcess) string { return strconv.FormatInt(p.rss, 10) }},
	"tty":     {"TTY", func(p psProcess) string { return p.tty }},
	"stat":    {"STAT", func(p psProcess) string { return p.state }},
	"stime":   {"STIME", psProcess.startText},
	"start":   {"START", psProcess.startText},
	"time":    {"TIME", func(p psProcess) string { return clock(p.cpu) }},
	"etime":   {"ELAPSED", func(p psProcess) string { return clock(p.age) }},
	"cmd":     {"CMD", func(p psProcess) string { return p.args }},
	"args":    {"COMMAND", func(p psProcess) string { return p.args }},
	"command": {"COMMAND", func(p psProcess) string { return p.args }},
	"comm":    {"COMMAND", func(p psProcess) string { return p.name }},
}

const (
	psFull = "uid,pid,ppid,c,stime,tty,time,cmd"
	psUser = "user,pid,%cpu,%mem,vsz,rss,tty,stat,start,time,command"
)

// parsePS reads the arguments of ps that `docker top` passes on: -ef, which is
// the default, aux, and -o with a list of columns.
func parsePS(args string) ([]psColumn, error) {
	list, formatted := "", false
	for word := range strings.FieldsSeq(args) {
		switch {
		case formatted:
			list = strings.Trim(list+","+word, ",")
		case word == "-o" || word == "-eo" || word == "o":
			formatted = true
		case strings.HasPrefix(word, "-o"), strings.HasPrefix(word, "-eo"):
			_, list, _ = strings.Cut(word, "o")
			formatted = true
		case word == "aux" || word == "-aux":
			list = psUser
		case word == "-ef" || word == "-e" || word == "-f" || word == "ef":
			list = psFull
		default:
			return nil, invalid("ovnd has no ps: %q is none of -ef, aux and -o COLUMNS", word)
		}
	}
	if list == "" && !formatted {
		list = psFull
	}
	var columns []psColumn
	for name := range strings.SplitSeq(list, ",") {
		col, ok := psColumns[name]
		if !ok {
			return nil, invalid("unknown column %q: ovnd has %s", name, strings.Join(slices.Sorted(maps.Keys(psColumns)), ", "))
		}
		columns = append(columns, col)
	}
	return columns, nil
}

// startText is when the process started, by the clock if that was today.
func (p psProcess) startText() string {
	if p.age < 24*time.Hour {
		return p.started.Format("15:04")
	}
	return p.started.Format("Jan02")
}

func clock(d time.Duration) string {
	s := int64(d / time.Second)
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// ticks is USER_HZ, the unit of times in /proc: 100 a second on all machines
// that Linux tells user space about.
const ticks = 100

// readProcess reads a process from /proc (proc(5)).
func readProcess(pid int, now time.Time) (psProcess, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return psProcess{}, err
	}
	p, err := parseStat(stat)
	if err != nil {
		return psProcess{}, fmt.Errorf("%s/stat: %w", dir, err)
	}
	if info, err := os.Stat(dir); err == nil {
		p.user = ownerName(info)
	}
	p.args = "[" + p.name + "]"
	if line, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && len(line) > 0 {
		p.args = string(bytes.ReplaceAll(bytes.TrimRight(line, "\x00"), []byte{0}, []byte{' '}))
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return psProcess{}, err
	}
	up, err := strconv.ParseFloat(strings.Fields(string(uptime))[0], 64)
	if err != nil {
		return psProcess{}, err
	}
	p.age = max(0, time.Duration(up*float64(time.Second))-p.age)
	p.started = now.Add(-p.age)
	if p.age > 0 {
		p.cpuShare = 100 * float64(p.cpu) / float64(p.age)
	}
	if total := memTotal(); total > 0 {
		p.memShare = 100 * float64(p.rss<<10) / float64(total)
	}
	return p, nil
}

// Fields of /proc/PID/stat behind the name, as proc(5) numbers them less 3.
const (
	statState  = 0
	statParent = 1
	statTTY    = 4
	statUser   = 11
	statSystem = 12
	statStart  = 19
	statVSize  = 20
	statRSS    = 21
)

// parseStat reads /proc/PID/stat. The age that it sets is the process's start,
// counted from that of the machine.
func parseStat(stat []byte) (psProcess, error) {
	// The name is in parentheses and may have any character in it.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 1 || end < open {
		return psProcess{}, fmt.Errorf("no name in %q", stat)
	}
	var p psProcess
	var err error
	if p.pid, err = strconv.Atoi(strings.TrimSpace(string(stat[:open]))); err != nil {
		return psProcess{}, err
	}
	p.name = string(stat[open+1 : end])
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) <= statRSS {
		return psProcess{}, fmt.Errorf("%d fields behind the name", len(fields))
	}
	var n [statRSS + 1]int64
	for i := statParent; i <= statRSS; i++ {
		if n[i], err = strconv.ParseInt(fields[i], 10, 64); err != nil && i != statVSize {
			return psProcess{}, err
		}
	}
	p.state, p.ppid, p.tty = fields[statState], int(n[statParent]), ttyName(n[statTTY])
	p.cpu = time.Duration(n[statUser]+n[statSystem]) * time.Second / ticks
	p.age = time.Duration(n[statStart]) * time.Second / ticks
	p.vsz, p.rss = n[statVSize]>>10, n[statRSS]*int64(os.Getpagesize())>>10
	return p, nil
}

// ttyName is the name of a terminal by its device number. Only those that
// Linux makes for pseudo terminals have one here.
func ttyName(dev int64) string {
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	if major >= 136 && major <= 143 {
		return fmt.Sprintf("pts/%d", (major-136)<<8+minor)
	}
	return "?"
}

// ownerName is the user of a process, whose /proc directory info describes.
func ownerName(info os.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "?"
	}
	uid := strconv.FormatUint(uint64(st.Uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}
