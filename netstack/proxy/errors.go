package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"syscall"
)

// What a [Dialer]'s error wraps beside the [syscall.Errno] of one that could not
// connect.
var (
	ErrNoName      = errors.New("no such name")
	ErrUnavailable = errors.New("nobody is there")
	ErrForbidden   = errors.New("not allowed")
)

// Replies of RFC 1928 §6.
const (
	replySucceeded          = 0
	replyFailure            = 1
	replyNotAllowed         = 2
	replyNetworkUnreachable = 3
	replyHostUnreachable    = 4
	replyRefused            = 5
	replyTTLExpired         = 6
	replyNoCommand          = 7
	replyNoAddressType      = 8
)

// A failure is how an error is told.
type failure struct {
	reply  byte
	status int
	kind   string // RFC 9209 §2.3
}

// failureOf classifies what a Dialer returned.
func failureOf(err error) failure {
	var netErr net.Error
	switch {
	case errors.Is(err, ErrNoName):
		return failure{replyHostUnreachable, http.StatusBadGateway, "dns_error"}
	case errors.Is(err, ErrUnavailable):
		return failure{replyHostUnreachable, http.StatusServiceUnavailable, "destination_unavailable"}
	case errors.Is(err, ErrForbidden):
		return failure{replyNotAllowed, http.StatusForbidden, "destination_ip_prohibited"}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return failure{replyRefused, http.StatusBadGateway, "connection_refused"}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN):
		return failure{replyNetworkUnreachable, http.StatusBadGateway, "destination_ip_unroutable"}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return failure{replyHostUnreachable, http.StatusBadGateway, "destination_ip_unroutable"}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return failure{replyTTLExpired, http.StatusGatewayTimeout, "connection_timeout"}
	}
	return failure{replyFailure, http.StatusInternalServerError, "proxy_internal_error"}
}
