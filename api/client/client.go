// Package client makes ovnd's own API calls, those of api/types, to a node on
// this machine. Docker's calls are made with moby's client on the same socket.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/containerd/errdefs/pkg/errhttp"

	"github.com/ovnd/ovnd/api/types"
)

// maxAnswer bounds an answer's body, in bytes: a network of 65,536 endpoints
// is about half of it.
const maxAnswer = 64 << 20

// ErrNoNode means that nobody answers on the socket: the node is not up.
var ErrNoNode = errors.New("no node is running here: start one with `ovnd up`")

// Client talks to one node. It is made by [New] and may be used by many
// goroutines at once.
type Client struct {
	http   *http.Client
	socket string
}

// New returns a client of the node at host, "unix://" and the path of its
// socket. It does not connect yet.
func New(host string) (*Client, error) {
	socket, ok := strings.CutPrefix(host, "unix://")
	if !ok || socket == "" {
		return nil, fmt.Errorf("host %q: a node listens on a unix socket: want unix:///path/to/ovnd.sock", host)
	}
	return &Client{
		socket: socket,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
		}},
	}, nil
}

// Close gives idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Attach asks for the addresses of a sandbox that is about to start.
func (c *Client) Attach(ctx context.Context, req types.AttachRequest) (types.AttachResponse, error) {
	return call[types.AttachResponse](ctx, c, http.MethodPost, "/ovnd/attach", req)
}

// Release gives the addresses of an attached sandbox back that does not start.
func (c *Client) Release(ctx context.Context, req types.ReleaseRequest) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/ovnd/release", req)
	return err
}

// Status describes the node.
func (c *Client) Status(ctx context.Context) (types.Status, error) {
	return call[types.Status](ctx, c, http.MethodGet, "/ovnd/status", nil)
}

// NetworkVerbose lists a network's endpoints on all nodes. The network is
// given by name, ID, or the beginning of its ID, and must have an endpoint on
// this node.
func (c *Client) NetworkVerbose(ctx context.Context, network string) (types.NetworkVerbose, error) {
	return call[types.NetworkVerbose](ctx, c, http.MethodGet, "/ovnd/networks/"+url.PathEscape(network)+"/verbose", nil)
}

// Down tells the node to stop. When it returns, the node has begun to; it has
// stopped once the process it names is gone.
func (c *Client) Down(ctx context.Context) (types.DownResponse, error) {
	return call[types.DownResponse](ctx, c, http.MethodPost, "/ovnd/down", nil)
}

// call makes one request and decodes its answer. Errors that the node answers
// with have their class of containerd/errdefs and the node's own words.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (answer T, err error) {
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return answer, fmt.Errorf("%s: %w", path, err)
		}
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://ovnd"+path, reader)
	if err != nil {
		return answer, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer, c.dialError(err)
	}
	defer func() { _ = resp.Body.Close() }() // nothing was written to it
	content := io.LimitReader(resp.Body, maxAnswer)
	if resp.StatusCode >= http.StatusBadRequest {
		return answer, answerError(resp, content)
	}
	if resp.StatusCode == http.StatusNoContent {
		return answer, nil
	}
	if err := json.NewDecoder(content).Decode(&answer); err != nil {
		return answer, fmt.Errorf("answer to %s %s: %w", method, path, err)
	}
	return answer, nil
}

// dialError explains the errors that a missing node and a foreign one cause.
func (c *Client) dialError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (nobody answers on %s)", ErrNoNode, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to use the node's socket %s: it belongs to another user", c.socket)
	}
	return err
}

func answerError(resp *http.Response, content io.Reader) error {
	var body struct{ Message string }
	message := resp.Status
	if json.NewDecoder(content).Decode(&body) == nil && body.Message != "" {
		message = body.Message
	}
	return statusError{message: message, class: errhttp.ToNative(resp.StatusCode)}
}

// statusError has the words of the node and the class of its status.
type statusError struct {
	message string
	class   error
}

func (e statusError) Error() string { return "Error response from daemon: " + e.message }
func (e statusError) Unwrap() error { return e.class }
