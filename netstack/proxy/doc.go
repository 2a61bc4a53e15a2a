// Package proxy serves a user's own programs on one port: SOCKS5 (RFC 1928) with
// CONNECT and UDP ASSOCIATE, and HTTP, with CONNECT (RFC 9110 §9.3.6) and plain
// requests in absolute form (RFC 9112 §3.2.2). The first byte of a connection
// tells them apart. Where they lead is a [Dialer]'s business: this package knows
// nothing of networks.
//
// # Who may
//
// A client gives a user name and a password, by RFC 1929 or HTTP's Basic scheme,
// or it gives none and is this user's own process: the kernel knows who has the
// socket at the other end of a loopback connection (sock_diag(7)).
//
// # What errors look like
//
//	                         SOCKS5 reply               HTTP status, error of RFC 9209
//	name does not exist      4 host unreachable         502 dns_error
//	nobody is behind it      4 host unreachable         503 destination_unavailable
//	port refuses             5 connection refused       502 connection_refused
//	no answer                6 TTL expired              504 connection_timeout
//	host unreachable         4 host unreachable         502 destination_ip_unroutable
//	network unreachable      3 network unreachable      502 destination_ip_unroutable
//	nobody may go there      2 not allowed              403 destination_ip_prohibited
//	anything else            1 general failure          500 proxy_internal_error
package proxy
