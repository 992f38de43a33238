package testdocs

// Configurations beside which command lines are run: those that the documents
// show there.
const (
	mineOnly    = `{"target": "deployment/shop", "feature": {"network": {"incoming": {"mode": "steal", "http_filter": {"header_filter": "^x-user: ana$"}}}}}`
	unixSockets = `{"feature": {"network": {"outgoing": {"unix_streams": ["^/var/run/postgresql/", "^/run/envoy/admin\\.sock$", "^my-abstract-name$"]}}}}`
)

// What mirrord says of the port of the example's program, and what the program
// prints.
const (
	mirrored = "port 8080: the target's traffic is mirrored"
	stolen   = "port 8080: the target's traffic is stolen"
	filtered = "port 8080: "
)

// table has a row for each command line of the documents.
var table = []Row{
	// First steps.
	{Text: "make build", By: Target, Note: "every test of the suite runs what it builds"},
	{Text: "make demo", By: Target, Note: "cmd/mirrord/testdata/demo.txt"},
	{Text: "make test", By: Target, Note: "this is it"},
	{Text: "make unit", By: Target, Note: "make test"},
	{Text: "make e2e", By: Target, Note: "make test"},
	{Text: "make lint", By: Target, Note: "make test"},
	{Text: "make fuzz", By: Target, Note: "takes minutes; make test runs the seeds"},
	{Text: "make chaos", By: Target, Note: "takes an hour; make test runs a part"},
	{Text: "make bench", By: Target, Note: "takes an hour; make test runs the tests of its parts"},
	{Text: "make unit-vscode", By: Target, Note: "make test"},
	{Text: "make e2e-vscode", By: Target, Note: "installs an editor and a browser; make test runs make unit-vscode"},
	{Text: "make vsix", By: Target, Note: "test/packages"},
	{Text: "make package VERSION=1.2.3", By: Target, Note: "test/packages"},
	{Text: "mirrord demo", By: Script, Note: "demo.txt"},
	{Text: "mirrord demo --keep", By: Here, Until: "Ctrl-C"},

	// From the archive of a release to a session.
	{Text: "tar xzf mirrord-1.2.3-linux-amd64.tar.gz", By: Release},
	{Text: "mirrord-1.2.3-linux-amd64/mirrord agent image --load", By: Release, Says: "(?m)^mirrord: loaded$"},
	{Text: "mirrord-1.2.3-linux-amd64/mirrord exec -t deployment/shop -- bash", By: Release, Says: "(?m)^blue$"},

	// Sessions.
	{Text: "mirrord exec -t pod/shop-7d4b9 python main.py", By: InCluster, Until: mirrored},
	{Text: "mirrord exec psql postgresql://dbmaster:5432/mydb", By: InCluster},
	{Text: "mirrord exec -t deployment/shop -- env", By: InCluster, Says: "(?m)^COLOUR=blue$"},
	{Text: "mirrord exec -t deployment/shop -- bash", By: InCluster},
	{Text: "mirrord exec -t deployment/shop -- getent hosts dbmaster", By: InCluster, Says: `(?m)^[0-9a-f.:]+ +dbmaster\.`},
	{Text: "mirrord exec -t deployment/shop -- cat /etc/app/config.yaml", By: InCluster, Says: "(?m)^colour: blue$"},
	{Text: "bin/mirrord exec -t deployment/shop -- bash", By: InCluster},
	{Text: "mirrord exec -t deployment/shop -- python main.py", By: InCluster, Until: mirrored},
	{Text: "mirrord exec -t deployment/shop --steal -- python main.py", By: InCluster, Until: stolen},
	{Text: "bin/mirrord exec -t deployment/shop --steal -- python3 -m http.server 8080", By: InCluster, Until: stolen},
	{Text: "mirrord exec -t deployment/shop --steal --header 'x-user: ana' -- python main.py", By: InCluster, Until: filtered},
	{Text: "bin/mirrord exec -t deployment/shop --steal --header 'x-user: ana' -- python3 -m http.server 8080", By: InCluster, Until: filtered},
	{Text: "mirrord exec -- python main.py", By: InCluster, Config: mineOnly, Until: filtered},
	{Text: "curl -H 'x-user: ana' http://shop.example/", By: Nobody, Note: "needs an ingress with a name of your own"},
	{Text: "mirrord exec -e -t pod/shop-7d4b9 python main.py", By: InCluster, Until: mirrored},
	{Text: "MIRRORD_PROGRESS_MODE=json mirrord exec -t pod/shop-7d4b9 -- true 2>events.jsonl", By: InCluster},
	{Text: "mirrord exec --pprof -t pod/shop-7d4b9 python main.py", By: InCluster, Until: mirrored, Says: "(?m)^mirrord: profiles of mirrord on this machine"},
	{Text: "mirrord exec --timings -t deployment/shop -- env", By: InCluster, Says: "(?m)^mirrord: how long the start took, in milliseconds$"},
	{Text: "mirrord exec --learn -t pod/shop-7d4b9 python main.py", By: InCluster, Until: mirrored, Says: "(?m)^mirrord: files: "},
	{Text: "mirrord exec --learn=report.json -t pod/shop-7d4b9 python main.py", By: InCluster, Until: mirrored, Says: "(?m)^mirrord: files: "},
	{Text: "mirrord exec -t pod/dbmaster-0 -- psql -h /var/run/postgresql -U postgres", By: InCluster, Config: unixSockets},

	{Text: "mirrord dump -t deployment/shop -p 80", By: InCluster, Until: "is printed; Ctrl-C ends it", Other: "nobody asks the shop meanwhile; TestDump shows what is printed then"},
	{Text: "mirrord port-forward -t deployment/shop --steal --header 'x-user: ana' -R 80:3000", By: InCluster, Until: "localhost:3000"},
	{Text: "mirrord port-forward -t deployment/shop -L 8080:web:80 -L 0:db.data:5432", By: InCluster, Until: "db.data:5432"},
	{Text: "mirrord exec -t deployment/dns --steal -- ./dnsserver -listen :53", By: Nobody, Note: "needs a server of your own; TestUDP runs one made for it"},
	{Text: "mirrord container -t deployment/shop --steal -- podman run --rm -it -v $PWD:/app -p 8080:80 shop:dev", By: Nobody, Note: "needs a terminal and an image; TestContainer runs images made for it"},

	// Of what there is, and why.
	{Text: "mirrord ls", By: InCluster, Says: `(?m)^deployment/shop +1/1 +8080 `},
	{Text: "mirrord doctor", By: InCluster, Says: "✓ user namespaces"},
	{Text: "mirrord doctor -t deployment/shop -n staging", By: InCluster, Says: "✓ API server: Kubernetes v"},
	{Text: "bin/mirrord doctor -t deployment/shop", By: InCluster, Says: "✓ target"},
	{Text: "mirrord doctor --devcontainer", By: Here, Says: `(?m)^  docker run --device=/dev/net/tun --device=/dev/fuse --security-opt=seccomp=unconfined --security-opt=apparmor=unconfined IMAGE$`},
	{Text: "mirrord diagnose -t deployment/shop -n staging", By: InCluster, Says: "(?m)^packed into "},
	{Text: "mirrord explain path /etc/app/config.yaml", By: InCluster, Config: mineOnly, Says: "(?m)^read /etc/app/config.yaml: remote$"},
	{Text: "mirrord explain path /srv/tool/x.conf -- /srv/tool/bin/run", By: InCluster, Config: mineOnly, Says: "(?m)^read /srv/tool/x.conf: "},
	{Text: "mirrord explain connect db.shop:5432", By: Here, Says: "(?m)^connect to db.shop:5432 by tcp: remote$"},
	{Text: "mirrord explain connect /var/run/app.sock", By: Here, Says: "(?m)^connect to unix:/var/run/app.sock: local$"},
	{Text: "mirrord explain connect /var/run/postgresql/.s.PGSQL.5432", By: Here, Config: unixSockets, Says: ": remote\n"},
	{Text: "mirrord explain connect unix:@my-abstract-name", By: Here, Config: unixSockets, Says: ": remote\n"},
	{Text: "mirrord explain dns db.shop", By: Here, Says: "(?m)^look up db.shop: remote$"},
	{Text: "mirrord explain env DATABASE_URL", By: Here, Says: "(?m)^variable DATABASE_URL: "},
	{Text: "mirrord explain request 'GET /health' -H 'x-user: ana'", By: InCluster, Config: mineOnly, Says: "your program\n"},
	{Text: "mirrord verify-config .mirrord/mirrord.json", By: Here, Config: mineOnly, Says: "no mistakes"},
	{Text: "mirrord config show --steal", By: Here, Config: mineOnly, Says: `(?m)^feature\.network\.incoming\.mode +"steal"`},
	{Text: "mirrord config schema > .mirrord/schema.json", By: Here, Config: mineOnly},
	{Text: "mirrord ext jetbrains -t deployment/shop --name Shop -- npm start", By: Here, Says: "made .run/Shop.run.xml"},
	{Text: "mirrord ext jetbrains -t deployment/shop --steal -- node --inspect-brk server.js", By: Here, Says: `made .run/mirrord node \(debugger\).run.xml`},
	{Text: "mirrord ext jetbrains -t deployment/shop -- dlv exec --headless --listen=127.0.0.1:2345 --accept-multiclient ./shop", By: Here, Says: "about port 2345"},
	{Text: "mirrord debug-config -t deployment/shop .vscode/launch.json 'Run shop'", By: Here, Says: `"runtimeExecutable": "mirrord"`},

	// Sessions that are kept, and what goes on in one: in this order.
	{Text: "id=$(mirrord session start -t deployment/shop --steal)", By: InCluster},
	{Text: "mirrord exec --session $id -- npm test", By: InCluster},
	{Text: "mirrord exec --session $id -- node --inspect server.js", By: InCluster, Until: stolen},
	{Text: "mirrord session stop $id", By: InCluster},
	{Text: "mirrord status", By: InCluster},
	{Text: "mirrord status --watch k3vq7a --filter request", By: InCluster, Until: "GET /api/cart"},

	{Text: "mirrord up init", By: Script, Note: "up.txt"},
	{Text: "mirrord up --dry-run", By: Here, Before: "mirrord up init", Says: "shop"},
	{Text: "mirrord up", By: InCluster, Before: "rm -f mirrord-up.yaml; mirrord up init", Until: "port 8080: ", Other: "a file with two services"},

	// Debuggers.
	{Text: "mirrord exec -t pod/shop-7d4b9 -- node --inspect-brk app.js", By: InCluster, Until: "port 9229 is local only"},
	{Text: "mirrord exec -t pod/shop-7d4b9 -- python -m debugpy --listen 5678 --wait-for-client app.py", By: InCluster, Until: "port 5678 is local only"},
	{Text: "mirrord exec -t pod/shop-7d4b9 -- dlv exec --headless --listen=127.0.0.1:2345 --accept-multiclient ./shop", By: InCluster, Until: "port 2345 is local only"},
	{Text: "mirrord exec -t pod/shop-7d4b9 -- java -agentlib:jdwp=transport=dt_socket,server=y,suspend=y,address=5005 -jar shop.jar", By: InCluster, Until: "port 5005 is local only"},
	{Text: "mirrord exec -t pod/shop-7d4b9 -- gdbserver 127.0.0.1:2159 ./shop", By: InCluster, Until: "port 2159 is local only"},
	{Text: "mirrord exec -t pod/shop-7d4b9 -- gdb ./shop", By: InCluster},
	{Text: "mirrord exec -t pod/shop-7d4b9 -- strace -f ./shop", By: InCluster, Says: `exited with 0`},

	// The agent's image. The tools that a cluster or a registry has of its own are
	// played by programs of the test.
	{Text: "mirrord agent image --load", By: Here, Says: "kind load image-archive"},
	{Text: "bin/mirrord agent image --load", By: Here, Says: "kind load image-archive"},
	{Text: "mirrord agent image --load --context kind-dev", By: Here, Says: "--name dev"},
	{Text: "mirrord agent image --load=minikube", By: Here, Says: "minikube image load"},
	{Text: "mirrord agent image --output - | sudo ctr -n k8s.io images import -", By: Here},
	{Text: "mirrord agent image --output - | ssh NODE sudo k3s ctr images import -", By: Here},
	{Text: "mirrord agent image --output agent.tar", By: Here},
	{Text: "mirrord agent image --push registry.example/team/mirrord-agent:1", By: Here, Says: `"agent": {"image": "registry.example/team/mirrord-agent:1"}`},
	{Text: "mirrord agent image --insecure --push localhost:5000/mirrord-agent:1", By: Here, Says: `"agent": {"image": "localhost:5000/mirrord-agent:1"}`},
	{Text: "MIRRORD_AGENT_IMAGE=$(mirrord agent image --push registry.example/team/mirrord-agent -o json | jq -r .pinned)", By: Here},
	{Text: "docker login registry.example", By: Nobody, Note: "docker's own, and needs a registry with a login"},
	{Text: "kubectl port-forward -n registry service/registry 5000 &", By: Nobody, Note: "kubectl's own, and needs a registry in the cluster"},

	// Permissions.
	{Text: "mirrord rbac -t deployment/shop -n staging --group developers | kubectl apply -f -", By: InCluster, Says: "rolebinding.*created"},
	{Text: "mirrord rbac -t pod/shop-7d4b9 -n staging -e --serviceaccount ci:runner", By: Here, Says: "pods/ephemeralcontainers"},
	{Text: "mirrord rbac -n staging -o json", By: Here, Says: `"kind": "Role"`},
	{Text: "kubectl label namespace NAMESPACE pod-security.kubernetes.io/enforce=privileged", By: InCluster, Says: "labeled"},

	// Other machines.
	{Text: "brew install lima", By: Nobody, Note: "needs macOS"},
	{Text: "limactl start --mount-writable", By: Nobody, Note: "needs macOS"},
	{Text: `lima sudo dpkg -i "$PWD/mirrord_1.2.3_arm64.deb"`, By: Nobody, Note: "needs macOS"},
	{Text: "lima mirrord doctor", By: Nobody, Note: "needs macOS"},
	{Text: `lima mirrord exec --kubeconfig "$HOME/.kube/config" -t deployment/shop -- python3 main.py`, By: Nobody, Note: "needs macOS"},
	{Text: "tar xzf mirrord-1.2.3-darwin-arm64.tar.gz && sudo cp mirrord-1.2.3-darwin-arm64/mirrord /usr/local/bin/", By: Nobody, Note: "needs macOS; test/packages unpacks the archive"},
	{Text: "Expand-Archive mirrord-1.2.3-windows-amd64.zip .", By: Nobody, Note: "needs Windows; test/packages unpacks the archive"},
	{Text: "wsl --install", By: Nobody, Note: "needs Windows"},
	{Text: "wsl sudo dpkg -i mirrord_1.2.3_amd64.deb", By: Nobody, Note: "needs Windows"},
	{Text: "wsl mirrord doctor", By: Nobody, Note: "needs Windows"},
	{Text: "wsl mirrord exec --kubeconfig /mnt/c/Users/NAME/.kube/config -t deployment/shop -- python3 main.py", By: Nobody, Note: "needs Windows"},
	{Text: `docker run -it --rm --device=/dev/net/tun --device=/dev/fuse --security-opt=seccomp=unconfined --security-opt=apparmor=unconfined -v "$HOME/.kube:/root/.kube:ro" -v "$PWD:/work" -w /work IMAGE mirrord exec -t deployment/shop -- python3 main.py`,
		By: Nobody, Note: "needs a container engine, and an image of the user's"},
	{Text: `docker run -it --rm --device=/dev/net/tun --device=/dev/fuse --security-opt=seccomp=unconfined --security-opt=apparmor=unconfined -v "$env:USERPROFILE/.kube:/root/.kube:ro" -v "${PWD}:/work" -w /work IMAGE mirrord exec -t deployment/shop -- python3 main.py`,
		By: Nobody, Note: "needs Windows"},

	// What changes this machine.
	{Text: "sudo mirrord doctor --fix", By: Nobody, Note: "changes settings of the machine that the tests run on; the tests of internal/local/doctor mend one made for it"},
	{Text: "sudo apt install uidmap", By: Nobody, Note: "installs a package on the machine that the tests run on"},
	{Text: "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ana", By: Nobody, Note: "changes an account of the machine that the tests run on"},
	{Text: "sudo dpkg -i mirrord_1.2.3_amd64.deb", By: Nobody, Note: "installs a package on the machine that the tests run on; test/packages installs it elsewhere"},
	{Text: "docker run --device=/dev/net/tun --device=/dev/fuse --security-opt=seccomp=unconfined --security-opt=apparmor=unconfined IMAGE", By: Nobody, Note: "needs a container engine; that mirrord doctor --devcontainer prints this line is tested"},
}
