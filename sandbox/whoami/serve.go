package whoami

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// maxStreams is how many TCP connections are echoed at a time; more wait.
	// They may be silent for as long as they like.
	maxStreams  = 16384
	maxDatagram = 65535 // bytes
	maxStatus   = 16    // bytes of a POST /health
	headerTime  = 10 * time.Second
	grace       = 5 * time.Second // for requests under way at the end
	retryPause  = 20 * time.Millisecond
)

func (s *server) serveHTTP(ctx context.Context) error {
	srv := &http.Server{Handler: s.handler(), ReadHeaderTimeout: headerTime}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(s.web) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := srv.Shutdown(end)
	if err != nil {
		err = srv.Close()
	}
	<-ended
	return err
}

// handler answers HTTP requests.
func (s *server) handler() http.Handler {
	var health atomic.Int64
	health.Store(http.StatusOK)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		code := int(health.Load())
		w.WriteHeader(code)
		fmt.Fprintln(w, code, http.StatusText(code))
	})
	mux.HandleFunc("POST /health", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxStatus))
		code, convErr := strconv.Atoi(strings.TrimSpace(string(body)))
		if err != nil || convErr != nil || code < 200 || code > 599 {
			http.Error(w, "want a status code from 200 to 599", http.StatusBadRequest)
			return
		}
		health.Store(int64(code))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(s.who.page(r))
	})
	return mux
}

// page is what an HTTP client is told: a line for each thing known.
func (i identity) page(r *http.Request) []byte {
	var b bytes.Buffer
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", key, value)
		}
	}
	line("host", i.host)
	line("task", i.task)
	line("slot", i.slot)
	line("service", i.service)
	line("node", i.node)
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		line("server", local.String())
	}
	line("client", r.RemoteAddr)
	line("request", r.Method+" "+r.RequestURI+" "+r.Proto)
	line("header Host", r.Host)
	for _, key := range slices.Sorted(maps.Keys(r.Header)) {
		for _, value := range r.Header[key] {
			line("header "+key, value)
		}
	}
	return b.Bytes()
}

// serveStream greets each TCP client with a line and then echoes it.
func (s *server) serveStream(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.stream.Close() })
	defer stop()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxStreams)
	for {
		conn, err := s.stream.Accept()
		if err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			time.Sleep(retryPause) // out of descriptors, most likely
			continue
		}
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		g.Go(func() error {
			s.echo(gctx, conn)
			return nil
		})
	}
}

func (s *server) echo(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, s.who.line(conn.LocalAddr(), conn.RemoteAddr())); err != nil {
		return
	}
	_, _ = io.Copy(conn, conn)
}

// serveDatagrams answers each UDP datagram with a line and the datagram, as far
// as it fits.
func (s *server) serveDatagrams(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.datagram.Close() })
	defer stop()
	in := make([]byte, maxDatagram)
	for {
		n, from, err := s.datagram.ReadFrom(in)
		if err != nil {
			return err
		}
		out := append([]byte(s.who.line(s.datagram.LocalAddr(), from)), in[:n]...)
		// 28 bytes of headers count towards an IPv4 packet's 65535.
		_, _ = s.datagram.WriteTo(out[:min(len(out), maxDatagram-28)], from)
	}
}
