package sandbox

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// stageWait is that of a process which only stands for another.
const stageWait = "wait"

// Waiter is a task's Path and Args that do nothing until they are told to end:
// they stand for a program that runs already.
func Waiter(name string) (path string, args []string) {
	return "/proc/self/exe", []string{initName, stageWait, name}
}

// wait is what Waiter names. It returns an exit code.
func wait(name string) int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	fmt.Printf("%s: the application runs beside this node; its own log has what it says\n", name)
	<-stop
	return 0
}

// OwnDevices returns nil if this process may make TUN devices in the network
// namespace that it is in, else why not.
func OwnDevices() error {
	if err := checkTUN(tunPath); err != nil {
		return err
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	if caps[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return fmt.Errorf("CAP_NET_ADMIN is missing: in a container, start it with --cap-add NET_ADMIN: %w", unix.EPERM)
	}
	return nil
}
