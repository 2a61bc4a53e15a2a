package health

import (
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCommand(t *testing.T) {
	for _, tc := range []struct {
		test, want []string
		ok, err    bool
	}{
		{nil, nil, false, false},
		{[]string{"NONE"}, nil, false, false},
		{[]string{"CMD", "wget", "-q", "http://x"}, []string{"wget", "-q", "http://x"}, true, false},
		{[]string{"CMD-SHELL", "exit 1"}, []string{"/bin/sh", "-c", "exit 1"}, true, false},
		{[]string{"NONE", "true"}, nil, false, true},
		{[]string{"CMD"}, nil, false, true},
		{[]string{"CMD", ""}, nil, false, true},
		{[]string{"CMD-SHELL"}, nil, false, true},
		{[]string{"cmd", "true"}, nil, false, true},
		{[]string{""}, nil, false, true},
	} {
		args, ok, err := Command(tc.test)
		if !slices.Equal(args, tc.want) || ok != tc.ok || (err != nil) != tc.err {
			t.Errorf("%q: got %q, %v, %v", tc.test, args, ok, err)
		}
	}
}
