package main

import (
	"net/http"
	"strings"
	"testing"
)

// networkList is GET /networks of a manager, out of order.
const networkList = `[
 {"Name":"net10","Id":"xqi65ih8sz53i1jxvroqgekuc","Created":"2026-11-22T17:28:28.210464948Z","Scope":"swarm","Driver":"overlay","EnableIPv4":true,"Internal":true,"Labels":{"z":"","a":"b"}},
 {"Name":"net9","Id":"dvdqkogqh62gxbbi77m7ctrts","Created":"2026-11-22T17:27:30.592554228Z","Scope":"swarm","Driver":"overlay","EnableIPv4":true},
 {"Name":"ingress","Id":"j0a7j3mks3pysbdwp3a51fxlp","Created":"2026-11-22T17:27:29.563894014Z","Scope":"swarm","Driver":"overlay","EnableIPv4":true,"Ingress":true}
]`

func TestNetworkLs(t *testing.T) {
	n := newFakeNode(t)
	n.on("GET /networks", 0, networkList)
	tests := []struct {
		name, out string
		args      []string
	}{
		{"table", `NETWORK ID     NAME      DRIVER    SCOPE
j0a7j3mks3py   ingress   overlay   swarm
dvdqkogqh62g   net9      overlay   swarm
xqi65ih8sz53   net10     overlay   swarm
`, nil},
		{"no-trunc", `NETWORK ID                  NAME      DRIVER    SCOPE
j0a7j3mks3pysbdwp3a51fxlp   ingress   overlay   swarm
dvdqkogqh62gxbbi77m7ctrts   net9      overlay   swarm
xqi65ih8sz53i1jxvroqgekuc   net10     overlay   swarm
`, []string{"--no-trunc"}},
		{"quiet", "j0a7j3mks3py\ndvdqkogqh62g\nxqi65ih8sz53\n", []string{"-q"}},
		{"json", `{"CreatedAt":"2026-11-22 17:27:29.563894014 +0000 UTC","Driver":"overlay","ID":"j0a7j3mks3py","IPv4":"true","IPv6":"false","Internal":"false","Labels":"","Name":"ingress","Scope":"swarm"}
{"CreatedAt":"2026-11-22 17:27:30.592554228 +0000 UTC","Driver":"overlay","ID":"dvdqkogqh62g","IPv4":"true","IPv6":"false","Internal":"false","Labels":"","Name":"net9","Scope":"swarm"}
{"CreatedAt":"2026-11-22 17:28:28.210464948 +0000 UTC","Driver":"overlay","ID":"xqi65ih8sz53","IPv4":"true","IPv6":"false","Internal":"true","Labels":"a=b,z=","Name":"net10","Scope":"swarm"}
`, []string{"--format", "json"}},
		{"table template", "NETWORK ID     LABELS    INTERNAL\nj0a7j3mks3py             false\ndvdqkogqh62g             false\nxqi65ih8sz53   a=b,z=    true\n", []string{"--format", `table {{.ID}}\t{{.Labels}}\t{{.Internal}}`}},
		{"template", "INGRESS \nNET9 \nNET10 b\n", []string{"--format", `{{upper .Name}} {{.Label "a"}}`}},
		{"functions", "[ingress]\n[net9]\n[net10]\n", []string{"--format", `{{json (split .Name ",") | printf "%.0s"}}[{{join (split (truncate (lower .Name) 9) ",") "-"}}]`}},
		{"raw", "network_id: j0a7j3mks3py\nname: ingress\ndriver: overlay\nscope: swarm\n\n", []string{"--format", "raw"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := n.run(t, append([]string{"network", "ls"}, tt.args...)...)
			if tt.name == "raw" {
				got.out, _, _ = strings.Cut(got.out, "network_id: dv")
			}
			got.want(t, tt.out, "", 0)
		})
	}
	n.run(t, "network", "ls", "-f", "driver=overlay", "--filter", "label=x").want(t, tests[0].out, "", 0)
	if got, want := n.last(t, "GET /networks").query, "filters=%7B%22driver%22%3A%7B%22overlay%22%3Atrue%7D%2C%22label%22%3A%7B%22x%22%3Atrue%7D%7D"; got != want {
		t.Errorf("query %q, want %q", got, want)
	}
}

func TestNetworkInspect(t *testing.T) {
	n := newFakeNode(t)
	n.on("GET /networks/my_net", 0, `{"Name":"my_net","Id":"dvdqkogqh62gxbbi77m7ctrts","Later":123456789012,"Containers":null,"Labels":{"a":"<b>"}}`)
	n.on("GET /networks/nosuch", http.StatusNotFound, message("network nosuch not found"))
	const missing = "Error response from daemon: network nosuch not found\n"
	const inspected = `[
    {
        "Name": "my_net",
        "Id": "dvdqkogqh62gxbbi77m7ctrts",
        "Later": 123456789012,
        "Containers": null,
        "Labels": {
            "a": "<b>"
        }
    }
]
`
	n.run(t, "network", "inspect", "my_net").want(t, inspected, "", 0)
	n.run(t, "network", "inspect", "nosuch", "my_net").want(t, inspected, missing, 1)
	n.run(t, "network", "inspect", "nosuch").want(t, "[]\n", missing, 1)
	n.run(t, "network", "inspect", "-f", "json", "my_net").want(t,
		`[{"Name":"my_net","Id":"dvdqkogqh62gxbbi77m7ctrts","Later":123456789012,"Containers":null,"Labels":{"a":"<b>"}}]`+"\n", "", 0)
	n.run(t, "network", "inspect", "-f", "{{.ID}} {{json .Labels}}", "my_net", "nosuch").want(t, "dvdqkogqh62gxbbi77m7ctrts {\"a\":\"<b>\"}\n", missing, 1)
	// Fields that only the node knows, as it writes them.
	n.run(t, "network", "inspect", "-f", "{{.Id}} {{.Later}}", "my_net").want(t, "dvdqkogqh62gxbbi77m7ctrts 123456789012\n", "", 0)
	n.run(t, "network", "inspect", "-f", "{{.Foo}}", "my_net").want(t, "",
		"template parsing error: template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\"\n", 1)
	n.run(t, "network", "inspect", "-v", "my_net").want(t, inspected, "", 0)
	if got := n.last(t, "GET /networks/my_net").query; got != "verbose=true" {
		t.Errorf("query %q, want verbose=true", got)
	}
}

func TestNetworkCreate(t *testing.T) {
	n := newFakeNode(t)
	n.on("POST /networks/create", http.StatusCreated, `{"Id":"dvdqkogqh62gxbbi77m7ctrts","Warning":""}`)
	n.run(t, "network", "create", "my_net").want(t, "dvdqkogqh62gxbbi77m7ctrts\n", "", 0)
	n.last(t, "POST /networks/create").wantBody(t, `{"Name":"my_net","Driver":"overlay","Scope":"","Internal":false,"Attachable":false,"Ingress":false,
		"ConfigOnly":false,"ConfigFrom":null,"IPAM":{"Driver":"default","Options":null,"Config":null},"Options":{},"Labels":{}}`)

	n.on("POST /networks/create", http.StatusCreated, `{"Id":"dvdqkogqh62gxbbi77m7ctrts","Warning":"subnet 10.10.19.0/16 was taken as 10.10.0.0/16"}`)
	n.run(t, "network", "create", "-d", "overlay", "--subnet", "10.10.19.0/16", "--gateway", "10.10.0.5", "--ip-range", "10.10.4.0/24",
		"--opt", "com.docker.network.driver.mtu=1400", "-o", "encrypted", "--label", "a=b", "--label", "c",
		"--internal", "--attachable", "--ingress", "--ipv6", "--scope", "swarm", "my_net").
		want(t, "dvdqkogqh62gxbbi77m7ctrts\n", "WARNING: subnet 10.10.19.0/16 was taken as 10.10.0.0/16\n", 0)
	n.last(t, "POST /networks/create").wantBody(t, `{"Name":"my_net","Driver":"overlay","Scope":"swarm","EnableIPv6":true,"Internal":true,"Attachable":true,"Ingress":true,
		"ConfigOnly":false,"ConfigFrom":null,
		"IPAM":{"Driver":"default","Options":null,"Config":[{"Subnet":"10.10.19.0/16","IPRange":"10.10.4.0/24","Gateway":"10.10.0.5"}]},
		"Options":{"com.docker.network.driver.mtu":"1400","encrypted":""},"Labels":{"a":"b","c":""}}`)

	n.on("POST /networks/create", http.StatusConflict, message("network with name my_net already exists"))
	n.run(t, "network", "create", "my_net").want(t, "", "Error response from daemon: network with name my_net already exists\n", 1)
}

// The words are docker's.
func TestNetworkCreateAddresses(t *testing.T) {
	tests := []struct{ args, err string }{
		{"--subnet 10.300.0.0/16", "Error response from daemon: invalid network config:\ninvalid subnet 10.300.0.0/16: invalid CIDR block notation"},
		{"--subnet foo", "Error response from daemon: invalid network config:\ninvalid subnet foo: invalid CIDR block notation"},
		{"--subnet 10.30.0.0/33", "Error response from daemon: invalid network config:\ninvalid subnet 10.30.0.0/33: invalid CIDR block notation"},
		{"--subnet 10.30.0.0/24 --gateway 10.31.0.1", "no matching subnet for gateway 10.31.0.1"},
		{"--subnet 10.30.0.0/24 --gateway foo", "no matching subnet for gateway foo"},
		{"--gateway 10.30.0.254", "every ip-range or gateway must have a corresponding subnet"},
		{"--subnet 10.1.0.0/24 --gateway 10.1.0.1 --gateway 10.1.0.2", "every ip-range or gateway must have a corresponding subnet"},
		{"--subnet 10.43.0.0/24 --ip-range 10.44.0.128/25", "no matching subnet for range 10.44.0.128/25"},
		{"--subnet 10.43.0.0/24 --ip-range 10.43.0.0/16", "no matching subnet for range 10.43.0.0/16"},
		{"--subnet 10.43.0.0/24 --ip-range foo", "invalid CIDR address: foo"},
		{"--subnet 10.1.0.0/24 --subnet 10.1.0.0/25", "multiple overlapping subnet configuration is not supported"},
		{"--subnet 10.1.0.0/16,10.2.0.0/16 --ip-range 10.1.4.0/24,10.1.5.0/24", "cannot configure multiple ranges (10.1.5.0/24, 10.1.4.0/24) on the same subnet (10.1.0.0/16)"},
		{"--subnet 10.1.0.0/16,10.2.0.0/16 --gateway 10.1.4.0,10.1.5.0", "cannot configure multiple gateways (10.1.5.0, 10.1.4.0) for the same subnet (10.1.0.0/16)"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			args := append([]string{"network", "create", "x"}, strings.Fields(tt.args)...)
			ovndCommand(t, args...).want(t, "", tt.err+"\n", 1)
		})
	}
}

func TestNetworkRm(t *testing.T) {
	n := newFakeNode(t)
	for _, name := range []string{"a", "b"} {
		n.on("GET /networks/"+name, 0, `{"Name":"`+name+`"}`)
		n.on("DELETE /networks/"+name, http.StatusNoContent, nil)
	}
	n.on("GET /networks/ingress", 0, `{"Name":"ingress","Ingress":true}`)
	n.on("DELETE /networks/ingress", http.StatusNoContent, nil)
	n.on("GET /networks/used", 0, `{"Name":"used"}`)
	n.on("DELETE /networks/used", http.StatusForbidden, message("network used is in use"))
	n.on("DELETE /networks/nosuch", http.StatusNotFound, message("network nosuch not found"))

	n.run(t, "network", "rm", "a", "b").want(t, "a\nb\n", "", 0)
	n.run(t, "network", "remove", "used", "a", "nosuch").want(t, "a\n",
		"Error response from daemon: network used is in use\nError response from daemon: network nosuch not found\nexit status 1\n", 1)
	n.run(t, "network", "rm", "-f", "nosuch", "a").want(t, "a\n", "", 0)

	const question = ingressWarning + "\nAre you sure you want to continue? [y/N] "
	for input, out := range map[string]string{"": "", "n\n": "", "yes\n": "", "y\n": "ingress\n", " Y \n": "ingress\n"} {
		ovndWithInput(t, input, "-H", n.host, "network", "rm", "ingress").want(t, question+out, "", 0)
	}
}

func TestNetworkPrune(t *testing.T) {
	n := newFakeNode(t)
	n.on("POST /networks/prune", 0, `{"NetworksDeleted":["a2","a3"]}`)
	const question = "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue? [y/N] "
	n.run(t, "network", "prune").want(t, question, "", 0)
	n.run(t, "network", "prune", "-f", "--filter", "label=x").want(t, "Deleted Networks:\na2\na3\n\n", "", 0)
	if got, want := n.last(t, "POST /networks/prune").query, "filters=%7B%22label%22%3A%7B%22x%22%3Atrue%7D%7D"; got != want {
		t.Errorf("query %q, want %q", got, want)
	}
	n.on("POST /networks/prune", 0, `{"NetworksDeleted":null}`)
	n.run(t, "network", "prune", "-f").want(t, "", "", 0)
}

func TestCompletion(t *testing.T) {
	n := newFakeNode(t)
	n.on("GET /networks", 0, networkList)
	n.on("GET /nodes", 0, nodeList)
	const end = ":4\n"
	const endErr = "Completion ended with directive: ShellCompDirectiveNoFileComp\n"
	for args, out := range map[string]string{
		"network rm ":            "net10\nnet9\ningress\n",
		"network inspect ":       "net10\nnet9\ningress\n",
		"run --network ":         "net10\nnet9\ningress\n",
		"node inspect ":          "self\nlocalhost\nhsp2\nhsp1\n",
		"node rm ":               "localhost\nhsp2\nhsp1\n",
		"swarm join-token ":      "worker\nmanager\n",
		"node update --role ":    "worker\nmanager\n",
		"swarm init --availabil": "--availability\tAvailability of the node (\"active\", \"pause\", \"drain\")\n",
	} {
		t.Run(args, func(t *testing.T) {
			got := n.run(t, append([]string{"__complete"}, strings.Split(args, " ")...)...)
			got.want(t, out+end, endErr, 0)
		})
	}
}
