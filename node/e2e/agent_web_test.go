package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// lookup returns the sorted addresses of a name, as programs that use the
// system's resolver see them.
func lookup(name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	addrs, err := (&net.Resolver{PreferGo: true}).LookupHost(ctx, name)
	slices.Sort(addrs)
	return addrs, err
}

// fetched is what came of many requests.
type fetched struct {
	Failed int
	Error  string         // the first
	Who    map[string]int // answers by the value of their line "task: …"
	Sizes  map[int]int    // answers by the size of their body, in bytes
}

// fetch sends n requests to a URL from some clients at a time, each on a
// connection of its own.
func fetch(url string, n, clients int) fetched {
	out := fetched{Who: map[string]int{}, Sizes: map[int]int{}}
	client := &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, MaxIdleConns: -1},
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := make(chan struct{})
	for range clients {
		wg.Go(func() {
			for range next {
				body, err := get(client, url)
				mu.Lock()
				out.add(body, err)
				mu.Unlock()
			}
		})
	}
	for range n {
		next <- struct{}{}
	}
	close(next)
	wg.Wait()
	return out
}

func get(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return string(body), err
}

func (f *fetched) add(body string, err error) {
	if err != nil {
		f.Failed++
		if f.Error == "" {
			f.Error = err.Error()
		}
		return
	}
	f.Sizes[len(body)]++
	for line := range strings.Lines(body) {
		if who, ok := strings.CutPrefix(line, "task: "); ok {
			f.Who[strings.TrimSpace(who)]++
		}
	}
}
