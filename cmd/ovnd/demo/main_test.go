package demo

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childEnv makes the test binary stand for ovnd.
const childEnv = "OVND_DEMO_TEST_CHILD"

const testReadyEnv = "OVND_DEMO_TEST_READY"

func TestMain(m *testing.M) {
	if kind := os.Getenv(childEnv); kind != "" {
		childMain(kind)
	}
	os.Exit(m.Run())
}

// childMain is an ovnd that knows `up` and what the tests ask.
func childMain(kind string) {
	time.AfterFunc(time.Minute, func() { os.Exit(8) }) // whatever became of the test
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if os.Args[1] != "up" {
		fmt.Println(strings.Join(os.Args[1:], " "), os.Getenv("OVND_STATE_DIR"), os.Getenv("OVND_HOST"))
		if kind == "fail" {
			fmt.Fprintln(os.Stderr, "it failed")
			os.Exit(1)
		}
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "up:", strings.Join(os.Args[1:], " "))
	switch kind {
	case "die":
		os.Exit(3)
	case "hang":
		<-stop
		os.Exit(0)
	}
	if os.Getenv(testReadyEnv) != "3" {
		os.Exit(9)
	}
	answer := map[string]any{"Ready": true}
	if kind == "refuse" {
		answer = map[string]any{"Error": "port 4789 is taken"}
	}
	if err := json.NewEncoder(os.NewFile(3, "ready")).Encode(answer); err != nil {
		os.Exit(10)
	}
	if kind == "stubborn" {
		signal.Reset(syscall.SIGTERM)
		signal.Ignore(syscall.SIGTERM)
	}
	<-stop
	os.Exit(0)
}
