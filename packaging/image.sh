#!/bin/sh
# Builds ovnd's image without a registry.
#
#   packaging/image.sh archives         static binaries and root file systems, for
#                                       amd64 and arm64, in packaging/image
#   packaging/image.sh import [NAME]    the archive of the engine's architecture as
#                                       an image (default ovnd:latest)
set -eu
cd "$(dirname "$0")/.."
out=packaging/image

archive() {
	CGO_ENABLED=0 GOOS=linux GOARCH=$1 go build -trimpath -ldflags '-s -w' -o "bin/ovnd-linux-$1" ./cmd/ovnd
	mkdir -p $out
	go run ./packaging/rootfs -o "$out/rootfs-$1.tar" "bin/ovnd-linux-$1"
}

case "${1:-}" in
archives)
	archive amd64
	archive arm64
	;;
import)
	arch=$(docker version --format '{{.Server.Arch}}')
	archive "$arch"
	# The settings are the Dockerfile's, a line each.
	name=${2:-ovnd:latest}
	set --
	while IFS= read -r line; do
		case "$line" in
		'' | '#'* | FROM* | ARG* | ADD*) ;;
		*) set -- "$@" --change "$line" ;;
		esac
	done <packaging/Dockerfile
	docker import --platform "linux/$arch" "$@" "$out/rootfs-$arch.tar" "$name"
	;;
*)
	sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
