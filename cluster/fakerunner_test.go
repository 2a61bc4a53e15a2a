package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

// withTasks are engine labels that give a child a fakeRunner.
var withTasks = map[string]string{"test.tasks": "fake"}

// A fakeRunner is a TaskRunner whose tasks behave as the name of their program
// says:
//
//	reject   cannot be prepared
//	broken   cannot be started
//	sick     never gets healthy
//	faint    gets unhealthy after Args[0]
//	end      ends with status Args[0] after Args[1]
//	stubborn does not stop, it must be killed
//
// All others run. What runs outlives the child, as a file in dir.
type fakeRunner struct {
	dir  string
	send func(event string, data any)

	mu    sync.Mutex
	tasks map[string]*fakeTask
}

type fakeTask struct {
	*Task
	running bool
	ended   chan struct{}
	exit    TaskExit
	busy    atomic.Int32
}

// A taskEvent tells the test what the runner was asked.
type taskEvent struct {
	Op   string
	ID   string
	Name string
	Task *Task `json:",omitempty"`
	At   time.Time
}

func newFakeRunner(dir string, send func(string, any)) *fakeRunner {
	_ = os.MkdirAll(dir, 0o700)
	return &fakeRunner{dir: dir, send: send, tasks: make(map[string]*fakeTask)}
}

// enter reports a call and one that overlaps with another.
func (r *fakeRunner) enter(op, id string, task *Task) (*fakeTask, func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tasks[id]
	ev := taskEvent{Op: op, ID: id, Task: task, At: time.Now()}
	if t != nil {
		ev.Name = t.Name
	}
	r.send("task", ev)
	if t == nil {
		return nil, func() {}
	}
	if t.busy.Add(1) > 1 {
		r.send("overlap", ev)
	}
	return t, func() { t.busy.Add(-1) }
}

func (r *fakeRunner) file(id string) string { return filepath.Join(r.dir, id) }

func (r *fakeRunner) PrepareTask(_ context.Context, task *Task) error {
	_, leave := r.enter("prepare", task.ID, task)
	defer leave()
	if task.Command == "reject" {
		return errors.New(`program "reject" is not on the PATH of this node`)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tasks[task.ID] != nil {
		return nil
	}
	t := &fakeTask{Task: task, ended: make(chan struct{})}
	if task.Restored {
		if _, err := os.Stat(r.file(task.ID)); err != nil {
			return errors.New("the process ended while its node was away")
		}
		t.running = true
	}
	r.tasks[task.ID] = t
	return nil
}

func (r *fakeRunner) StartTask(ctx context.Context, id string) error {
	t, leave := r.enter("start", id, nil)
	defer leave()
	if t == nil {
		return errors.New("start: unknown task")
	}
	if t.Command == "broken" {
		return errors.New("exec format error")
	}
	r.mu.Lock()
	if !t.running {
		t.running = true
		_ = os.WriteFile(r.file(id), nil, 0o600)
		if t.Command == "end" {
			code, _ := strconv.Atoi(t.Args[0])
			after, _ := time.ParseDuration(t.Args[1])
			time.AfterFunc(after, func() { r.finish(t, code) })
		}
	}
	r.mu.Unlock()
	if t.Command == "sick" {
		select {
		case <-time.After(100 * time.Millisecond):
			return ErrUnhealthy
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// finish ends a task once.
func (r *fakeRunner) finish(t *fakeTask, code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !t.running {
		return
	}
	t.running, t.exit = false, TaskExit{Code: code, FinishedAt: time.Now()}
	_ = os.Remove(r.file(t.ID))
	close(t.ended)
}

func (r *fakeRunner) WaitTask(ctx context.Context, id string) (TaskExit, error) {
	t, leave := r.enter("wait", id, nil)
	defer leave()
	if t == nil {
		return TaskExit{}, errors.New("wait: unknown task")
	}
	var unhealthy <-chan time.Time
	if t.Command == "faint" {
		after, _ := time.ParseDuration(t.Args[0])
		unhealthy = time.After(after)
	}
	select {
	case <-t.ended:
		return t.exit, nil
	case <-unhealthy:
		return TaskExit{}, fmt.Errorf("probe: %w", ErrUnhealthy)
	case <-ctx.Done():
		return TaskExit{}, fmt.Errorf("waiting: %w", ctx.Err())
	}
}

func (r *fakeRunner) ShutdownTask(ctx context.Context, id string) error {
	t, leave := r.enter("shutdown", id, nil)
	defer leave()
	if t == nil {
		return nil
	}
	if t.Command == "stubborn" {
		<-ctx.Done()
		return ctx.Err()
	}
	r.finish(t, 143)
	return nil
}

func (r *fakeRunner) TerminateTask(_ context.Context, id string) error {
	t, leave := r.enter("terminate", id, nil)
	defer leave()
	if t != nil {
		r.finish(t, 137)
	}
	return nil
}

func (r *fakeRunner) RemoveTask(_ context.Context, id string) error {
	_, leave := r.enter("remove", id, nil)
	defer leave()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.tasks, id)
	return nil
}

func (r *fakeRunner) TaskStatus(id string) (TaskStatus, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tasks[id]
	if t == nil {
		return TaskStatus{}, false
	}
	st := TaskStatus{ContainerID: "c-" + id, ExitCode: t.exit.Code}
	if t.running {
		st.PID = 4711
		for _, p := range t.Ports {
			if p.HostMode {
				open := p.Port
				if open.Published == 0 {
					open.Published = 32768
				}
				st.Ports = append(st.Ports, open)
			}
		}
	}
	return st, true
}

// TaskLogs has ten lines, the odd ones of stderr, and one more every 20 ms.
func (r *fakeRunner) TaskLogs(ctx context.Context, id string, o LogOptions, each func(LogMessage) error) error {
	r.mu.Lock()
	t := r.tasks[id]
	r.mu.Unlock()
	if t == nil {
		return nil
	}
	line := func(n int) error {
		m := LogMessage{Time: time.Unix(1700000000+int64(n), 0), Stderr: n%2 == 1, Data: fmt.Appendf(nil, "slot %d line %d\n", t.Slot, n)}
		if m.Stderr && !o.Stderr || !m.Stderr && !o.Stdout || m.Time.Before(o.Since) {
			return nil
		}
		return each(m)
	}
	const lines = 10
	first := 0
	if o.Tail >= 0 {
		first = max(lines-o.Tail, 0)
	}
	for n := first; n < lines; n++ {
		if err := line(n); err != nil {
			return err
		}
	}
	for n := lines; o.Follow; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.ended:
			return nil
		case <-time.After(20 * time.Millisecond):
		}
		if err := line(n); err != nil {
			return err
		}
	}
	return nil
}

// checkPorts is a Config.CheckPorts of a node where 8099 is taken, and each port
// that was asked for before.
func checkPorts() func([]directory.Port) error {
	var mu sync.Mutex
	taken := map[uint16]bool{8099: true}
	return func(ports []directory.Port) error {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range ports {
			if taken[p.Published] {
				return fmt.Errorf("node n1 cannot publish port %d/%s: address already in use: choose another port, or stop what listens there", p.Published, p.Protocol)
			}
			taken[p.Published] = true
		}
		return nil
	}
}

var _ TaskRunner = (*fakeRunner)(nil)

func tasksDir(cfg Config) string { return filepath.Join(filepath.Dir(cfg.StateDir), "tasks") }

func filesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func removeFile(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}
