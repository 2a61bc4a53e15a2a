package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"time"
)

// clearMark is in datagrams that a test makes up, which no agent may hear on an
// encrypted network.
const clearMark = "clear-text-4f60ab12"

// exchangeCanary has a text echoed by UDP and by TCP.
func exchangeCanary(to, text string) error {
	udp, err := net.Dial("udp", withPort(to, agentPort))
	if err != nil {
		return err
	}
	defer udp.Close()
	back := make([]byte, len(text))
	_ = udp.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := udp.Write([]byte(text)); err != nil {
		return err
	}
	if n, err := udp.Read(back); err != nil || string(back[:n]) != text {
		return fmt.Errorf("UDP echo of %d bytes: %q, %w", n, back[:n], err)
	}
	tcp, err := net.DialTimeout("tcp", withPort(to, agentPort+1), 3*time.Second)
	if err != nil {
		return err
	}
	defer tcp.Close()
	_ = tcp.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := tcp.Write([]byte(text)); err != nil {
		return err
	}
	if _, err := io.ReadFull(tcp, back); err != nil || string(back) != text {
		return fmt.Errorf("TCP echo: %q, %w", back, err)
	}
	return nil
}

// A sprayer sends a text to an agent again and again, whatever comes of it.
type sprayer struct {
	quit, ended  chan struct{}
	sent, back   int // datagrams
	tried, opens int // connections
}

// sprayed is what came of it.
type sprayed struct{ Sent, Back, Tried, Opened int }

func startSpray(to, text string) *sprayer {
	s := &sprayer{quit: make(chan struct{}), ended: make(chan struct{})}
	go s.run(to, []byte(text))
	return s
}

func (s *sprayer) stop() sprayed {
	if s == nil {
		return sprayed{}
	}
	close(s.quit)
	<-s.ended
	return sprayed{s.sent, s.back, s.tried, s.opens}
}

func (s *sprayer) run(to string, text []byte) {
	defer close(s.ended)
	in := make([]byte, 65536)
	for round := 0; ; round++ {
		select {
		case <-s.quit:
			return
		case <-time.After(10 * time.Millisecond):
		}
		udp, err := net.Dial("udp", withPort(to, agentPort))
		if err != nil {
			continue
		}
		for range 4 {
			// Of several sizes, so that they are sealed one by one and in runs.
			datagram := bytes.Repeat(text, 1+round%32)
			if _, err := udp.Write(datagram); err == nil {
				s.sent++
			}
		}
		_ = udp.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		for err = nil; err == nil; {
			if _, err = udp.Read(in); err == nil {
				s.back++
			}
		}
		udp.Close()
		if round%16 == 0 {
			s.connect(to, text)
		}
	}
}

func (s *sprayer) connect(to string, text []byte) {
	s.tried++
	tcp, err := net.DialTimeout("tcp", withPort(to, agentPort+1), 100*time.Millisecond)
	if err != nil {
		return
	}
	defer tcp.Close()
	_ = tcp.SetDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := tcp.Write(text); err == nil {
		if _, err := io.ReadFull(tcp, make([]byte, len(text))); err == nil {
			s.opens++
		}
	}
}
