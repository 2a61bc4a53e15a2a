// Package tun makes TUN devices that carry super-packets and moves those
// between a device's queue and memory, one system call each.
//
// wireguard/tun creates and watches a device and negotiates its offloads; its
// Read and Write hand out one wire packet at a time, which costs two thirds of
// the throughput, so the reading and writing here is on the descriptor itself.
// What goes through it is a virtio_net_hdr (package pkt) and an IP packet of up
// to 64 KiB.
package tun
