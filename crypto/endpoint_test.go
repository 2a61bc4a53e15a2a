package crypto

import (
	"reflect"
	"testing"
)

func TestEndpoint(t *testing.T) {
	ca := newTestCA(t)
	owner, thief := testIdentity(t, ca.credentials(t, "node1", roleWorker)), testIdentity(t, ca.credentials(t, "node2", roleWorker))
	claim := EndpointClaim{
		NetworkID: "net", EndpointID: "ep", EndpointIP: "10.10.0.9/16", MAC: "02:42:0a:0a:00:09",
		VTEP: "192.0.2.1", Owner: "node1", Sequence: 7,
	}
	sig := owner.SignEndpoint(claim)
	record := owner.Statement().Record
	if !VerifyEndpoint(record, claim, sig) {
		t.Fatal("the owner's claim is refused")
	}
	if VerifyEndpoint(record, claim, thief.SignEndpoint(claim)) || VerifyEndpoint(thief.Statement().Record, claim, sig) {
		t.Error("a claim by another node is accepted")
	}
	for _, bad := range [][]byte{nil, sig[:63], append(sig, 0)} {
		if VerifyEndpoint(record, claim, bad) {
			t.Errorf("a signature of %d bytes is accepted", len(bad))
		}
	}

	// Each field counts.
	for i := range reflect.TypeFor[EndpointClaim]().NumField() {
		changed := claim
		switch f := reflect.ValueOf(&changed).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString(f.String() + "x")
		case reflect.Bool:
			f.SetBool(!f.Bool())
		case reflect.Uint64:
			f.SetUint(f.Uint() + 1)
		default:
			t.Fatalf("field of kind %v", f.Kind())
		}
		if VerifyEndpoint(record, changed, sig) {
			t.Errorf("%s changed, and the signature holds", reflect.TypeFor[EndpointClaim]().Field(i).Name)
		}
	}
}

// FuzzVerifyEndpoint moves bytes between fields: one signature, one claim.
func FuzzVerifyEndpoint(f *testing.F) {
	id := testIdentity(f, newTestCA(f).credentials(f, "node1", roleWorker))
	claim := EndpointClaim{NetworkID: "n", EndpointID: "e", EndpointIP: "10.0.0.2/24", MAC: "m", VTEP: "v", Owner: "node1"}
	sig := id.SignEndpoint(claim)
	f.Add(claim.NetworkID, claim.EndpointID, claim.EndpointIP, claim.MAC, claim.VTEP, claim.Owner, false, uint64(0), sig)
	f.Fuzz(func(t *testing.T, network, endpoint, ip, mac, vtep, owner string, released bool, seq uint64, s []byte) {
		c := EndpointClaim{network, endpoint, ip, mac, vtep, owner, released, seq}
		if VerifyEndpoint(id.Statement().Record, c, s) && c != claim {
			t.Errorf("accepted %+v", c)
		}
	})
}
