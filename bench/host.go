package bench

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
)

// hostBusy returns the time that all processors together have not been idle
// since boot, in the kernel's ticks of 10 ms.
func hostBusy() (time.Duration, error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("/proc/stat: %w", err)
	}
	// proc_stat(5): cpu user nice system idle iowait irq softirq steal …
	const idle, iowait, softirq = 4, 5, 7
	var ticks int64
	for i, field := range strings.Fields(line) {
		if i == 0 || i == idle || i == iowait || i > softirq {
			continue
		}
		var n int64
		if _, err := fmt.Sscan(field, &n); err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// A usage is what a process has done since it was started, by the kernel's
// accounts.
type usage struct {
	cpu time.Duration
	// calls are reads and writes of files, its TUN devices among them, and the
	// datagrams that its host sent and received: one for each system call, however
	// many segments it stands for. Other system calls (epoll, futex) are not counted.
	calls uint64
	// moved are the bytes that those reads and writes carried between the process
	// and the kernel; the sockets' are in octets.
	moved uint64
	// octets are the bytes that its host sent and received on the underlay.
	octets uint64
}

// usageOf reads the accounts of a process and of the network namespace it is in.
func usageOf(p *lab.Process) (u usage, err error) {
	if u.cpu, err = p.CPU(); err != nil {
		return u, err
	}
	dir := fmt.Sprintf("/proc/%d/", p.Pid())
	io, err := table(dir+"io", ":")
	if err != nil {
		return u, err
	}
	u.calls = io["syscr"] + io["syscw"]
	u.moved = io["rchar"] + io["wchar"]
	snmp, err := netTable(dir + "net/snmp")
	if err != nil {
		return u, err
	}
	snmp6, err := table(dir+"net/snmp6", " ")
	if err != nil {
		return u, err
	}
	u.calls += snmp["Udp:OutDatagrams"] + snmp["Udp:InDatagrams"] + snmp6["Udp6OutDatagrams"] + snmp6["Udp6InDatagrams"]
	u.octets, err = linkOctets(dir+"net/dev", "eth0")
	return u, err
}

// linkOctets returns what an interface has received and sent, 0 if there is none
// of that name.
func linkOctets(path, dev string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, values, ok := strings.Cut(line, ":")
		fields := strings.Fields(values)
		if !ok || strings.TrimSpace(name) != dev || len(fields) < 9 {
			continue
		}
		var in, out uint64
		_, err := fmt.Sscan(fields[0]+" "+fields[8], &in, &out)
		return in + out, err
	}
	return 0, nil
}

// table reads lines of a name, a separator and a number.
func table(path, separator string) (map[string]uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := make(map[string]uint64)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, separator)
		var n uint64
		if _, err := fmt.Sscan(value, &n); err == nil {
			out[name] = n
		}
	}
	return out, nil
}

// netTable reads pairs of lines, "Udp: names" and "Udp: numbers".
func netTable(path string) (map[string]uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := make(map[string]uint64)
	lines := strings.Split(string(text), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for k := 1; k < min(len(names), len(values)); k++ {
			var n uint64
			if _, err := fmt.Sscan(values[k], &n); err == nil {
				out[names[0]+names[k]] = n
			}
		}
	}
	return out, nil
}
