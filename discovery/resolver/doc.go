// Package resolver answers DNS questions of sandboxes, and of the host with
// `up --dns`, as Docker's embedded resolver does.
//
// # What it knows
//
// Each question is answered from the current snapshot of each network of the
// asking sandbox, in the order of its interfaces; the first network that has an
// address of the name wins, and only addresses of that network are given. On the
// ingress network no name resolves.
//
//	NAME, service alias          the VIP; of a dnsrr service, its tasks
//	tasks.NAME, tasks.alias      the tasks that take new connections
//	task name, hostname, alias   that task
//	any of these.NETWORK         the same, on that network alone
//	PTR                          <task or service>.<network>.
//	_PORT._PROTO.NAME            SRV, see below
//
// Names match in any case; an answer repeats the case of the question. Several
// addresses come in a new order each time. A task that is starting or unhealthy
// has no name, one that drains no address but keeps its PTR. Another type of a
// known name, AAAA above all, is NOERROR with a SOA for caches to go by, since
// musl takes any other code for the end of the name's A too. A reverse name in a
// subnet of these networks that nobody has is NXDOMAIN; Docker asks the world.
//
// libnetwork has the code for SRV and nothing that feeds it. Here PORT is the
// name or the target number of a port that the service publishes in ingress
// mode, since SwarmKit knows of no others. NAME gives one record that points at
// the VIP, tasks.NAME and a dnsrr service one for each task.
//
// # What it asks others
//
// Other questions, of a single label too, go to the host's name servers, from
// the host, as a stub would: first three of resolv.conf, in order, those that
// were silent of late last. Every query has a new socket, hence a source port of
// the kernel's choosing, and a new random ID; what does not match query, ID and
// server is ignored. A cut answer is fetched again over TCP. SERVFAIL and REFUSED
// make the next server's turn; without any answer the client gets SERVFAIL, as
// it does beyond the cap of questions in flight. From a sandbox all of whose
// networks are internal nothing is asked: SERVFAIL, as Docker has it since
// CVE-2024-29018.
package resolver
