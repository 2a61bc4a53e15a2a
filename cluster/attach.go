package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/v2/errdefs"
	"github.com/moby/swarmkit/v2/agent"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// attachTimeout bounds AttachNetwork where the caller's context does not.
	attachTimeout = 10 * time.Second
	// allocateTimeout is how long a manager that has accepted an attachment
	// may take to bring it here. Allocation takes milliseconds; one that
	// fails is not reported, its task stays NEW for ever.
	allocateTimeout = 5 * time.Second
	detachTimeout   = 5 * time.Second
	retryPause      = 100 * time.Millisecond
	maxReleaseDelay = 10 * time.Second
)

// An Attachment is an endpoint of this node on a network: an address that the
// swarm allocated to one sandbox.
type Attachment struct {
	TaskID      string
	ContainerID string
	Network     Network
	Addrs       []netip.Prefix // with the subnet's length; one IPv4 address today
	// Restored marks an attachment that a former life of this node has made.
	Restored bool
}

// A waitKey is what AttachNetwork knows before it has a task ID.
type waitKey struct{ containerID, target string }

// A waiter is one AttachNetwork call. Whoever takes it out of the table sends
// one result.
type waiter struct {
	waitKey
	result chan attachResult // buffered: the sender never blocks
	got    bool              // the call has taken its result
}

type attachResult struct {
	att Attachment
	err error
}

// attachments are the network-attachment tasks of this node. They outlive a
// SwarmKit node that ends and starts again.
type attachments struct {
	c *Cluster

	mu      sync.Mutex
	waiting map[waitKey]*waiter
	running map[string]Attachment // by task ID
	// release holds tasks whose address no manager has taken back yet.
	release map[string]struct{}
	pending chan struct{} // has an element when release grew
}

func newAttachments(c *Cluster) *attachments {
	return &attachments{
		c:       c,
		waiting: make(map[waitKey]*waiter),
		running: make(map[string]Attachment),
		release: make(map[string]struct{}),
		pending: make(chan struct{}, 1),
	}
}

// AttachNetwork asks the swarm for an address on the network target (ID or
// name) for containerID, one of addrs if any are given ("10.0.1.7"), and waits
// for it. Without a deadline of ctx it takes at most ten seconds. After an
// error nothing stays allocated.
func (c *Cluster) AttachNetwork(ctx context.Context, containerID, target string, addrs []string) (Attachment, error) {
	att, err := c.attachNetwork(ctx, containerID, target, addrs)
	if err != nil {
		return Attachment{}, fmt.Errorf("Could not attach to network %s: %w", target, err) //nolint:staticcheck // Docker's words
	}
	return att, nil
}

func (c *Cluster) attachNetwork(ctx context.Context, containerID, target string, addrs []string) (Attachment, error) {
	ag, err := c.agent()
	if err != nil {
		return Attachment{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	target, err = c.checkTarget(ctx, target, addrs)
	if err != nil {
		return Attachment{}, err
	}
	w, err := c.attachments.wait(waitKey{containerID, target})
	if err != nil {
		return Attachment{}, err
	}
	att, err := c.requestAttachment(ctx, ag, w, addrs)
	if err != nil {
		c.attachments.giveUp(w)
	}
	return att, err
}

// requestAttachment asks the managers and waits for the task to arrive here.
func (c *Cluster) requestAttachment(ctx context.Context, ag *agent.Agent, w *waiter, addrs []string) (Attachment, error) {
	taskID, err := c.requestTask(ctx, ag, w, addrs)
	if err != nil {
		return Attachment{}, err
	}
	select {
	case res := <-w.result:
		w.got = true
		if res.err != nil {
			c.attachments.releaseLater(res.att.TaskID)
		}
		return res.att, res.err
	case <-time.After(allocateTimeout):
	case <-ctx.Done():
	}
	c.attachments.releaseLater(taskID)
	if len(addrs) > 0 {
		return Attachment{}, errdefs.Conflict(fmt.Errorf("the swarm gave no address: %s is taken or outside the network's range (attaching to network failed, make sure your network options are correct and check manager logs)", strings.Join(addrs, ", ")))
	}
	return Attachment{}, errdefs.Unavailable(errors.New("the swarm gave no address: the network has none left, or its manager is overloaded (attaching to network failed, make sure your network options are correct and check manager logs)"))
}

// requestTask makes the managers create the task. It tries until ctx ends
// while no manager answers: another one may take over. Should a request have
// got through whose answer was lost, the call gets the first task that
// arrives, and the other is released.
func (c *Cluster) requestTask(ctx context.Context, ag *agent.Agent, w *waiter, addrs []string) (taskID string, err error) {
	for {
		taskID, err = ag.ResourceAllocator().AttachNetwork(ctx, w.containerID, w.target, addrs)
		if err == nil {
			return taskID, nil
		}
		if ctx.Err() == nil && status.Code(err) != codes.Unavailable {
			return "", err
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return "", c.noManagerAnswers()
		}
	}
}

func (c *Cluster) noManagerAnswers() error {
	managers := "none"
	if remotes := c.Remotes(); len(remotes) > 0 {
		managers = strings.Join(remotes, ", ")
	}
	return errdefs.Unavailable(fmt.Errorf("no manager of the swarm answers (managers known: %s): attaching needs one; networks that are up work on", managers))
}

// agent is the agent of the SwarmKit node, which speaks to the managers.
func (c *Cluster) agent() (*agent.Agent, error) {
	r, _ := c.current()
	if r == nil {
		return nil, errNoSwarm
	}
	node := r.snapshot().node
	if node == nil {
		return nil, unavailable("the swarm node of this machine is starting again: try again in a moment")
	}
	ag := node.Agent()
	if ag == nil {
		return nil, unavailable("this node is still joining its swarm: try again in a moment")
	}
	return ag, nil
}

// DetachNetwork gives the address of an attachment back to the swarm. It
// returns once a manager has taken it. If none answers before ctx ends, it
// returns an error and goes on trying in the background. Detaching twice is no
// error.
func (c *Cluster) DetachNetwork(ctx context.Context, taskID string) error {
	err := c.detach(ctx, taskID)
	if err != nil {
		c.attachments.releaseLater(taskID)
		return fmt.Errorf("giving back the address of attachment %s (tried again in the background): %w", taskID, err)
	}
	return nil
}

func (c *Cluster) detach(ctx context.Context, taskID string) error {
	ctx, cancel := context.WithTimeout(ctx, detachTimeout)
	defer cancel()
	ag, err := c.agent()
	if errors.Is(err, errNoSwarm) {
		return nil // the swarm's addresses are no concern of this node any more
	}
	if err != nil {
		return err
	}
	err = ag.ResourceAllocator().DetachNetwork(ctx, taskID)
	if err != nil && !isNotFound(err) {
		return err
	}
	return nil
}

// Attachments are those that run on this node.
func (c *Cluster) Attachments() []Attachment { return c.attachments.list() }

func (a *attachments) list() []Attachment {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Attachment, 0, len(a.running))
	for _, att := range a.running {
		out = append(out, att)
	}
	return out
}

func (a *attachments) wait(key waitKey) (*waiter, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, busy := a.waiting[key]; busy {
		return nil, errdefs.Conflict(fmt.Errorf("container %s is being attached to it already", key.containerID))
	}
	w := &waiter{waitKey: key, result: make(chan attachResult, 1)}
	a.waiting[key] = w
	return w, nil
}

// giveUp ends the wait of a call that failed. If its task arrives none the
// less, before or after, the address is released.
func (a *attachments) giveUp(w *waiter) {
	a.mu.Lock()
	_, waits := a.waiting[w.waitKey]
	delete(a.waiting, w.waitKey)
	a.mu.Unlock()
	if !waits && !w.got {
		res := <-w.result // on its way: the waiter has been claimed
		a.releaseLater(res.att.TaskID)
	}
}

// claim takes the call that waits for an attachment out of the table.
func (a *attachments) claim(containerID, networkID, networkName string) (*waiter, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, target := range []string{networkID, networkName} {
		key := waitKey{containerID, target}
		if w, ok := a.waiting[key]; ok {
			delete(a.waiting, key)
			return w, true
		}
	}
	return nil, false
}

// add records an attachment. It reports false if it is known already: the
// SwarmKit node has started again below us.
func (a *attachments) add(att Attachment) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.running[att.TaskID]; known {
		return false
	}
	a.running[att.TaskID] = att
	return true
}

func (a *attachments) known(taskID string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.running[taskID]
	return ok
}

// remove reports whether the attachment was known.
func (a *attachments) remove(taskID string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, known := a.running[taskID]
	delete(a.running, taskID)
	return known
}

// releaseLater makes releaseLoop give the task's address back.
func (a *attachments) releaseLater(taskID string) {
	a.mu.Lock()
	a.release[taskID] = struct{}{}
	a.mu.Unlock()
	select {
	case a.pending <- struct{}{}:
	default:
	}
}

func (a *attachments) toRelease() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := make([]string, 0, len(a.release))
	for id := range a.release {
		ids = append(ids, id)
	}
	return ids
}

// releaseLoop gives addresses back until ctx ends, however long the managers
// are away.
func (a *attachments) releaseLoop(ctx context.Context) {
	delay := time.Second
	for {
		var retry <-chan time.Time
		if len(a.toRelease()) > 0 {
			retry = time.After(delay)
		}
		select {
		case <-a.pending:
			delay = time.Second
		case <-retry:
			delay = min(2*delay, maxReleaseDelay)
		case <-ctx.Done():
			return
		}
		for _, id := range a.toRelease() {
			if err := a.c.detach(ctx, id); err != nil {
				a.c.log.Debug("address not given back yet", "task", id, "error", err)
				break // the next one would fare no better
			}
			a.mu.Lock()
			delete(a.release, id)
			a.mu.Unlock()
		}
	}
}

// detachAll gives all addresses back when the node stops or leaves. What no
// manager takes in time is given back at the node's next start, where nobody
// claims it.
func (a *attachments) detachAll() {
	ctx, cancel := context.WithTimeout(context.Background(), detachTimeout)
	defer cancel()
	for _, att := range a.list() {
		if err := a.c.detach(ctx, att.TaskID); err != nil {
			a.c.log.Warn("addresses of this node stay allocated until it starts again or is removed from the swarm", "error", err)
			return
		}
	}
}

// reset forgets what belongs to a swarm that this node has left.
func (a *attachments) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.release)
	clear(a.running)
}

// An attachmentController drives one network-attachment task (SwarmKit's
// exec.Controller). The agent calls Prepare, Start and Wait of a new task, and
// Wait alone of one that ran before the node restarted.
type attachmentController struct {
	set         *attachments
	task        *swarmapi.Task
	containerID string
	restored    bool
	ended       atomic.Bool
}

// Update has nothing to take over: an attachment cannot change.
func (ac *attachmentController) Update(context.Context, *swarmapi.Task) error { return nil }

// Prepare refuses what this node cannot carry; the task is then rejected.
func (ac *attachmentController) Prepare(context.Context) error {
	att, err := ac.attachment()
	if err != nil {
		id, name := ac.network()
		if w, ok := ac.set.claim(ac.containerID, id, name); ok {
			w.result <- attachResult{att, err}
		}
	}
	return err
}

// Start announces the attachment.
func (ac *attachmentController) Start(context.Context) error { return ac.assign() }

// assign brings the attachment to the node and to the call that asked for it.
func (ac *attachmentController) assign() error {
	if ac.ended.Load() || ac.set.known(ac.task.ID) {
		return nil
	}
	att, err := ac.attachment()
	if err != nil {
		return err
	}
	id, name := ac.network()
	w, waits := ac.set.claim(ac.containerID, id, name)
	if !waits && !ac.restored {
		ac.set.releaseLater(ac.task.ID) // the call that asked for it gave up
		return nil
	}
	if ac.set.add(att) {
		ac.set.c.cfg.Hooks.AttachmentAssigned(att)
	}
	if waits {
		w.result <- attachResult{att, nil}
	}
	return nil
}

// Wait waits for the end of the attachment, which always comes from outside.
func (ac *attachmentController) Wait(ctx context.Context) error {
	if err := ac.assign(); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// Shutdown ends the attachment because the swarm wants it so.
func (ac *attachmentController) Shutdown(context.Context) error { return ac.end() }

// Terminate is Shutdown: there is no process here that could resist.
func (ac *attachmentController) Terminate(context.Context) error { return ac.end() }

// Remove ends the attachment because the task is deleted or the node stops.
func (ac *attachmentController) Remove(context.Context) error { return ac.end() }

// Close has nothing to close.
func (ac *attachmentController) Close() error { return nil }

func (ac *attachmentController) end() error {
	ac.ended.Store(true)
	if ac.set.remove(ac.task.ID) {
		ac.set.c.cfg.Hooks.AttachmentRemoved(ac.task.ID)
	}
	return nil
}

func (ac *attachmentController) network() (id, name string) {
	if len(ac.task.Networks) == 0 || ac.task.Networks[0].Network == nil {
		return "", ""
	}
	n := ac.task.Networks[0].Network
	return n.ID, n.Spec.Annotations.Name
}

func (ac *attachmentController) attachment() (Attachment, error) {
	att := Attachment{TaskID: ac.task.ID, ContainerID: ac.containerID, Restored: ac.restored}
	if len(ac.task.Networks) == 0 {
		return att, errors.New("the attachment names no network")
	}
	na := ac.task.Networks[0]
	var err error
	if att.Network, err = networkFromAPI(na.Network); err != nil {
		return att, err
	}
	if att.Addrs, err = prefixesFromAPI(na.Addresses); err != nil {
		return att, err
	}
	if len(att.Addrs) == 0 {
		return att, errors.New("the swarm allocated no address")
	}
	return att, nil
}
