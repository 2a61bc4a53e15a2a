package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/moby/moby/api/types/container"
)

const webName = "my-test.1.js3kw89zbb09plu86jn1xnsy6"

// serveContainers is serve over two tasks and one process of `ovnd run`.
func serveContainers(t *testing.T) (*testServer, *fakeContainers) {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("no docker command here; CI installs it")
	}
	fc := newFakeContainers()
	t.Cleanup(fc.killExecs)
	fc.run(t, task(webID, webName), "sh", "-c", "echo one; echo two >&2; exec sleep 1000")
	second := task(webTwo, "my-test.2.rbmhtcqabx5tfiyux21qtd6g8")
	second.Created = second.Created.Add(time.Second)
	fc.run(t, second, "sleep", "1000")
	fc.run(t, Container{ID: runID, Name: "lone", Image: "sh", Created: time.Now()}, "sh", "-c", "exit 3")
	<-fc.byID[runID].ended
	waitFor(t, func() bool { return len(lines(fc, webID)) == 2 })
	f := newFakeNode()
	f.containers = fc
	return serve(t, f), fc
}

func lines(fc *fakeContainers, id string) []LogLine {
	fc.mu.Lock()
	defer fc.mu.Unlock()
	return slices.Clone(fc.byID[id].lines)
}

// waitFor waits for a condition, 5 s at most.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited 5 s in vain")
		}
	}
}

// TestContainersCLI holds what the stock command prints of containers, and how
// it exits.
func TestContainersCLI(t *testing.T) {
	s, _ := serveContainers(t)
	one, two := "my-test.1", "my-test.2"
	tests := []struct {
		args   string
		stdout string // all of it, if it ends in a newline; else a part
		stderr string // a part; empty: nothing on stderr
		code   int
	}{
		{"ps --format {{.ID}}|{{.Image}}|{{.Names}}|{{.Ports}}", "aaf4ea038b2b|nginx:latest|my-test.2.rbmhtcqabx5tfiyux21qtd6g8|80/tcp, 192.0.2.11:5353->53/udp\n821f692a75de|nginx:latest|" + webName + "|80/tcp, 192.0.2.11:5353->53/udp\n", "", 0},
		{"ps -a --format {{.Names}}|{{.State}}|{{.Command}}", "lone|exited|\"sh -c 'exit 3'\"\n", "", 0},
		{"ps -a --filter status=exited --format {{.Status}}", "Exited (3) ", "", 0},
		{"ps --filter name=" + one + " --format {{.Status}}", "Up ", "", 0},
		{"ps -q --no-trunc --filter id=821f", webID + "\n", "", 0},
		{"ps -q --no-trunc --filter label=com.docker.swarm.task.name=" + webName, webID + "\n", "", 0},
		{"ps -q --no-trunc --filter label=com.docker.swarm.service.name=other", "", "", 0},
		{"ps -q --no-trunc --filter network=plain_net --filter before=" + webTwo, webID + "\n", "", 0},
		{"ps -q --no-trunc --filter since=" + webName, webTwo + "\n", "", 0},
		{"ps -aq --no-trunc --filter is-task=false", runID + "\n", "", 0},
		{"ps -aq --no-trunc --filter ancestor=sh", runID + "\n", "", 0},
		{"ps -q --no-trunc --filter ancestor=nginx --filter name=" + two, webTwo + "\n", "", 0},
		{"ps -aq --no-trunc --filter exited=3", runID + "\n", "", 0},
		{"ps -q --no-trunc -l", runID + "\n", "", 0},
		{"ps -q --filter publish=53/udp --filter volume=/srv --filter health=none --filter name=" + two, "aaf4ea038b2b\n", "", 0},
		{"ps -q --filter expose=1000-2000", "", "", 0},
		{"ps -s -q --filter name=" + one, "821f692a75de\n", "", 0},
		{"ps --filter nosuch=x", "", "invalid filter 'nosuch'", 1},
		{"inspect -f {{.Id}}|{{.Name}}|{{.State.Status}}|{{.Config.Image}}|{{.Path}} " + webName, webID + "|/" + webName + "|running|nginx:latest|sh\n", "", 0},
		{"inspect -f {{.Name}} 821f", "/" + webName + "\n", "", 0},
		{"inspect -f {{.Name}} /lone", "/lone\n", "", 0},
		{"container inspect -f {{range.NetworkSettings.Networks}}{{.IPAddress}}/{{.IPPrefixLen}}|{{.MacAddress}}|{{.Gateway}}|{{.NetworkID}}|{{.DNSNames}}|{{.IPAMConfig.IPv4Address}}{{end}} " + webName, "10.20.0.5/16|02:42:0a:14:00:05||" + usedID + "|[" + webName + " 821f692a75de]|10.20.0.5\n", "", 0},
		{"container inspect -f {{.State.ExitCode}}|{{.State.Running}}|{{.State.StartedAt}} lone", "3|false|2", "", 0},
		{`container inspect -f {{index\ .Config.Labels\ "com.docker.swarm.task.name"}}|{{.HostConfig.NetworkMode}}|{{.Config.StopTimeout}} ` + webName, webName + "|default|10\n", "", 0},
		{"inspect aaf", "[]\n", "multiple IDs found with provided prefix: aaf", 1},
		{"inspect nosuch", "[]\n", "No such object: nosuch", 1},
		{"logs " + webName, "one\n", "two\n", 0},
		{"logs --tail 0 " + webName, "", "", 0},
		{"logs lone", "", "container lone has no log: what `ovnd run` runs writes to its own terminal", 1},
		{"logs nosuch", "", "Error response from daemon: No such container: nosuch\n", 1},
		{"port " + webName, "53/udp -> 192.0.2.11:5353\n", "", 0},
		{"port " + webName + " 53/udp", "192.0.2.11:5353\n", "", 0},
		{"top " + webName, "sleep 1000\n", "", 0},
		{"top " + webName + " -o pid,comm", "sleep\n", "", 0},
		{"top " + webName + " aux", "sleep 1000\n", "", 0},
		{"top " + webName + " --forest", "", "ovnd has no ps: \"--forest\" is none of", 1},
		{"top lone", "", "container " + runID + " is not running", 1},
		{"wait lone", "3\n", "", 0},
		{"exec lone true", "", "container " + runID + " is not running", 1},
		{"exec nosuch true", "", "No such container: nosuch", 1},
		{"exec " + webName + " echo hello", "hello\n", "", 0},
		{"exec " + webName + " sh -c exit\\ 7", "", "", 7},
		{"exec -e X=y -w /tmp " + webName + " sh -c echo\\ $X\\ $(pwd)\\ $TERM", "y /tmp", "", 0},
		{"exec " + webName + " sh -c echo\\ bad\\ >&2;kill\\ -9\\ $$", "", "bad\n", 137},
		{"exec " + webName + " ./no-such-program", "exec failed: ", "", 127},
		{"exec -d " + webName + " sleep 0", "", "", 0},
		{"exec --user root0 " + webName + " true", "", "not as \"root0\": leave --user away", 1},
		{"exec --privileged " + webName + " true", "", "leave --privileged away", 1},
		{"exec -w tmp " + webName + " true", "", "is not an absolute path", 1},
		{"kill -s NONSENSE " + webName, "", "invalid signal: NONSENSE", 1},
		{"kill lone", "", "cannot kill container: lone: container " + runID + " is not running", 1},
		{"kill -s KILL " + two + ".rbmhtcqabx5tfiyux21qtd6g8", two + ".rbmhtcqabx5tfiyux21qtd6g8\n", "", 0},
		{"wait aaf4", "137\n", "", 0},
		{"stop -t 5 " + webName, webName + "\n", "", 0},
		{"stop " + webName, webName + "\n", "", 0},
		{"wait 821f", "143\n", "", 0},
		{"info -f {{.Containers}}|{{.ContainersRunning}}|{{.ContainersStopped}}", "3|0|3\n", "", 0},
		{"start lone", "", "ovnd cannot start a container again", 1},
		{"restart lone", "", "ovnd cannot restart a container", 1},
		{"rename lone other", "", "ovnd cannot rename a container", 1},
		{"pause lone", "", "ovnd cannot pause a container", 1},
		{"rm lone", "", "ovnd forgets a container with its task", 1},
		{"cp lone:/x /tmp/x", "", "ovnd's containers have no file system of their own", 1},
		{"stats --no-stream lone", "", "ovnd does not measure containers", 1},
		{"commit lone", "", "ovnd does not have images", 1},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			args := strings.Fields(strings.ReplaceAll(tt.args, `\ `, "\x00"))
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "\x00", " ")
			}
			stdout, stderr, code := s.dockerCLI(t, args...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if tt.stdout != stdout && (tt.stdout == "" || !strings.Contains(stdout, tt.stdout)) {
				t.Errorf("stdout %q, want %q", stdout, tt.stdout)
			}
			if !strings.Contains(stderr, tt.stderr) || tt.stderr == "" && stderr != "" {
				t.Errorf("stderr %q, want %q", stderr, tt.stderr)
			}
		})
	}
}

// TestInspectDecodes: the answer reads as Docker's type.
func TestInspectDecodes(t *testing.T) {
	s, _ := serveContainers(t)
	_, _, body := request(t, s.httpClient(t), "GET", "/v1.50/containers/"+webID+"/json?size=1", "", "")
	var got container.InspectResponse
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.ID != webID || got.Config.Env[0] != "A=b" || len(got.Mounts) != 1 || got.HostConfig.Binds[0] != "/srv:/data:ro" {
		t.Errorf("inspect answered %s", body)
	}
}

// docker starts the stock command with its streams free.
func (s *testServer) docker(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", append([]string{"-H", "unix://" + s.path}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir(), "DOCKER_HOST=", "DOCKER_API_VERSION=", "TERM=xterm")
	return cmd
}

// TestLogsFollow: lines arrive as they are written, and the stream ends with
// the container.
func TestLogsFollow(t *testing.T) {
	s, fc := serveContainers(t)
	proceed := filepath.Join(t.TempDir(), "proceed")
	fc.run(t, Container{ID: strings.Repeat("c", 64), Name: "talker", LogPath: "/x.log", Created: time.Now()},
		"sh", "-c", "echo first; while [ ! -e \"$0\" ]; do sleep 0.01; done; echo second", proceed)
	cmd := s.docker(t, "logs", "-f", "-t", "talker")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n') // while the container runs
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(proceed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(lines)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if all := first + string(rest); !regexp.MustCompile(`^\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}Z first\n\S{30} second\n$`).MatchString(all) {
		t.Errorf("logs -f -t printed %q", all)
	}
}

// TestExecInput: what the client sends arrives, and so does its end.
func TestExecInput(t *testing.T) {
	s, _ := serveContainers(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	cmd := s.docker(t, "exec", "-i", webName, "sh", "-c", "cat; echo end >&2; exit 5")
	cmd.Stdin = bytes.NewReader(data)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit code %d (%v), want 5", code, err)
	}
	if !bytes.Equal(out.Bytes(), data) || errOut.String() != "end\n" {
		t.Errorf("%d bytes came back of %d, and %q on stderr", out.Len(), len(data), errOut.String())
	}
}

// terminal is the stock command on a terminal of its own.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	pty  *os.File
	seen []byte
}

func (s *testServer) onTerminal(t *testing.T, rows, columns uint16, args ...string) *terminal {
	t.Helper()
	term := &terminal{t: t, cmd: s.docker(t, args...)}
	var err error
	if term.pty, err = pty.StartWithSize(term.cmd, &pty.Winsize{Rows: rows, Cols: columns}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = term.pty.Close() })
	return term
}

func (c *terminal) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.pty, s); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads on until the text has been seen.
func (c *terminal) expect(text string) {
	c.t.Helper()
	if err := c.pty.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		if i := bytes.Index(c.seen, []byte(text)); i >= 0 {
			c.seen = c.seen[i+len(text):]
			return
		}
		n, err := c.pty.Read(buf)
		c.seen = append(c.seen, buf[:n]...)
		if err != nil {
			c.t.Fatalf("terminal shows %q, want %q: %v", c.seen, text, err)
		}
	}
}

// exit waits for the command's end.
func (c *terminal) exit() int {
	c.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, c.pty)
		_ = c.cmd.Wait()
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = c.cmd.Process.Kill()
		c.t.Fatal("the command has not ended within 10 s")
	}
	return c.cmd.ProcessState.ExitCode()
}

// TestExecTerminal: a shell with a terminal of the client's size, that follows
// it, and its exit code.
func TestExecTerminal(t *testing.T) {
	s, _ := serveContainers(t)
	c := s.onTerminal(t, 33, 101, "exec", "-it", webName, "sh")
	c.send("PS1='>'; stty size; tty; echo $TERM; echo rea''dy\n")
	c.expect("33 101")
	c.expect("/dev/pts/")
	c.expect("xterm")
	c.expect("ready")
	if err := pty.Setsize(c.pty, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	c.send("while [ \"$(stty size)\" != '40 120' ]; do sleep 0.01; done; echo res''ized; exit 9\n")
	c.expect("resized")
	if code := c.exit(); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
}

// TestExecDetach: ^P^Q leaves the command running. The stock command detaches
// on its own side, says so and exits with status 1.
func TestExecDetach(t *testing.T) {
	s, _ := serveContainers(t)
	c := s.onTerminal(t, 24, 80, "exec", "-it", webName, "sh", "-c", "echo pid $$ here; exec sleep 600")
	c.expect("pid ")
	c.expect(" here")
	c.send("\x10\x11")
	c.expect("read escape sequence")
	if code := c.exit(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	_, _, body := request(t, s.httpClient(t), "GET", "/containers/"+webID+"/json", "", "")
	var inspect container.InspectResponse
	if err := json.Unmarshal([]byte(body), &inspect); err != nil {
		t.Fatal(err)
	}
	if len(inspect.ExecIDs) != 1 {
		t.Fatalf("commands that run: %v, want one", inspect.ExecIDs)
	}
	exec := inspectExec(t, s, inspect.ExecIDs[0])
	if !exec.Running || exec.ExitCode != nil || exec.Pid == 0 || exec.ContainerID != webID {
		t.Errorf("inspect of the command: %+v", exec)
	}
	if err := syscall.Kill(exec.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return !inspectExec(t, s, exec.ID).Running })
	if got := inspectExec(t, s, exec.ID); got.ExitCode == nil || *got.ExitCode != 143 {
		t.Errorf("exit code %v, want 143", got.ExitCode)
	}
}

func inspectExec(t *testing.T, s *testServer, id string) container.ExecInspectResponse {
	t.Helper()
	_, _, body := request(t, s.httpClient(t), "GET", "/exec/"+id+"/json", "", "")
	var got container.ExecInspectResponse
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return got
}

// TestExecBackground: output that something in the background holds open does
// not hold up the client.
func TestExecBackground(t *testing.T) {
	s, _ := serveContainers(t)
	begin := time.Now()
	stdout, _, code := s.dockerCLI(t, "exec", webName, "sh", "-c", "sleep 8 & echo started; exit 6")
	if code != 6 || stdout != "started\n" {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	if d := time.Since(begin); d > 6*time.Second {
		t.Errorf("it took %v, want the grace of %v", d, outputGrace)
	}
	begin = time.Now()
	stdout, _, code = s.dockerCLI(t, "exec", webName, "sh", "-c", "yes >&1 & echo started; exit 6")
	if code != 6 || !strings.HasPrefix(stdout, "started\n") && !strings.HasPrefix(stdout, "y\n") {
		t.Errorf("with a talker in the background: exit code %d, stdout %.20q", code, stdout)
	}
	if d := time.Since(begin); d > 6*time.Second {
		t.Errorf("with a talker in the background it took %v, want the grace of %v", d, outputGrace)
	}
}

// TestAttachOutput: what a container writes from now on, until it ends.
func TestAttachOutput(t *testing.T) {
	s, fc := serveContainers(t)
	fc.run(t, Container{ID: strings.Repeat("d", 64), Name: "clock", LogPath: "/x.log", Created: time.Now()}, "sh", "-c", "while [ ! -e \"$0\" ]; do echo tick; sleep 0.02; done; exit 2", t.TempDir()+"/stop")
	cmd := s.docker(t, "attach", "--no-stdin", "clock")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if _, err := io.ReadFull(out, buf); err != nil || string(buf) != "tick\ntick\n" {
		t.Errorf("attach printed %q, %v", buf, err)
	}
	if err := fc.ContainerKill(t.Context(), strings.Repeat("d", 64), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 143 {
		t.Errorf("attach ended with %v, want the container's exit code 143", err)
	}
}

// TestExecAtStop: the server's end ends its streams, not the commands.
func TestExecAtStop(t *testing.T) {
	s, fc := serveContainers(t)
	cmd := s.docker(t, "exec", webName, "sh", "-c", "echo here; exec sleep 600")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	s.stop(t)
	if d := time.Since(begin); d > grace {
		t.Errorf("the server took %v to stop", d)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
	fc.mu.Lock()
	defer fc.mu.Unlock()
	select {
	case <-fc.execs[0].ended:
		t.Error("the command ended with the server")
	default:
	}
}
