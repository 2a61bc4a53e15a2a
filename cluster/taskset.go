package cluster

import (
	"context"
	"sync"
)

// A taskSet is the controllers of this node's tasks.
type taskSet struct {
	mu     sync.Mutex
	byID   map[string]*taskController
	ending bool // tasks that come are not begun
}

// add takes a controller in. The one that it replaces belongs to an agent that
// has ended.
func (s *taskSet) add(tc *taskController) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byID[tc.task.ID]; old != nil {
		old.end()
	}
	if s.byID == nil {
		s.byID = make(map[string]*taskController)
	}
	s.byID[tc.task.ID] = tc
	if s.ending {
		tc.end()
	}
}

func (s *taskSet) forget(tc *taskController) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[tc.task.ID] == tc {
		delete(s.byID, tc.task.ID)
	}
}

// begin lets tasks begin (again).
func (s *taskSet) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = false
}

// end keeps new tasks from beginning and returns those there are.
func (s *taskSet) end() []*taskController {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	all := make([]*taskController, 0, len(s.byID))
	for _, tc := range s.byID {
		all = append(all, tc)
	}
	return all
}

// EndTasks ends the tasks of this node in good order, those that do not stop
// within eleven seconds by a kill, and begins no more until the node starts or
// joins a swarm again. Run and Leave do so by themselves; a node that stops
// calls it before, while its other parts still work. The managers learn of it
// when the node is gone.
func (c *Cluster) EndTasks(ctx context.Context) {
	var wg sync.WaitGroup
	for _, tc := range c.tasks.end() {
		wg.Go(func() {
			if err := tc.Remove(ctx); err != nil {
				c.log.Warn("task may still run", "task", tc.task.Name, "error", err)
			}
		})
	}
	wg.Wait()
}
