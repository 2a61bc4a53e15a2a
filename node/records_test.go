package node

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/sandbox"
)

func testRecord() record {
	return record{
		Spec: sandbox.Spec{
			ID: randomID(), Name: "a", Token: randomID(), NodeSocket: "/run/x",
			Interfaces: []sandbox.Interface{{
				Name: "eth0", NetworkID: "n1", EndpointID: randomID(), MTU: 1450, Queues: 1,
				Addrs: []netip.Prefix{netip.MustParsePrefix("10.10.0.3/16")},
			}},
		},
		Attachments: []attachment{{
			Attachment: cluster.Attachment{TaskID: "t1", Network: cluster.Network{ID: "n1", Name: "net", VNI: 4097}},
			Aliases:    []string{"db"},
		}},
		Created: time.Now().UTC().Round(0),
	}
}

func TestRecordFiles(t *testing.T) {
	files := recordFiles{dir: filepath.Join(t.TempDir(), "sandboxes")}
	if got := files.load(slog.Default()); len(got) != 0 {
		t.Errorf("records in no folder: %v", got)
	}
	rec := testRecord()
	if err := files.save(rec); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(files.path(rec.Spec.ID)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v, %v", info.Mode(), err)
	}
	got := files.load(slog.Default())
	if len(got) != 1 || !reflect.DeepEqual(got[0], rec) {
		t.Errorf("loaded %+v\nwant %+v", got, rec)
	}
	if err := files.remove(rec.Spec.ID); err != nil {
		t.Error(err)
	}
	if err := files.remove(rec.Spec.ID); err != nil {
		t.Errorf("removed twice: %v", err)
	}
}

// FuzzReadRecord: what a crash or a careless hand leaves in the file.
func FuzzReadRecord(f *testing.F) {
	dir := f.TempDir()
	rec := testRecord()
	files := recordFiles{dir: dir}
	if err := files.save(rec); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(files.path(rec.Spec.ID))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := files.path(rec.Spec.ID)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readRecord(path)
		if err == nil && (got.Spec.ID != rec.Spec.ID || len(got.Attachments) != len(got.Spec.Interfaces)) {
			t.Errorf("accepted %+v", got)
		}
	})
}
