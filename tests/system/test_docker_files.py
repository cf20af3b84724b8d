"""What lies in docker/: the image's configuration and its documentation say the same, the compose files load, the
Kubernetes manifests build, fit their schemas and refer to things that are there."""
import json
import os
import re
import shutil
import subprocess

import conftest
import pytest
import yaml
from proxy import TOP, environment, run

pytestmark = pytest.mark.nosan
DOCKER = os.path.join(TOP, "docker")
CONF = os.path.join(DOCKER, "s3dlio-proxy.yaml")
KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
KUBERNETES = ("1.28", "1.31", "1.34")
MIB = 1 << 20


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as f:
        return f.read()


def tool(name):
    for p in (os.path.join(TOP, "build", "go-bin", name), shutil.which(name)):
        if p and os.access(p, os.X_OK):
            return p
    if conftest.CI:
        pytest.fail("%s is required in CI: tests/run builds it where Go 1.24 or newer is found" % name)
    return pytest.skip("no %s (tests/run builds it where Go 1.24 or newer is found)" % name)


def output(argv, **kw):
    r = subprocess.run(argv, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False, **kw)
    assert r.returncode == 0, "%s: %s" % (argv, r.stderr)
    return r.stdout


def bytes_of(text):
    """Sizes of the proxy (2GiB), of Kubernetes (3Gi) and of compose (1536m)."""
    m = re.fullmatch(r"(\d+)\s*([KMGkmg])(?:i|iB|b)?", text)
    return int(m[1]) << {"k": 10, "m": 20, "g": 30}[m[2].lower()]


def seconds_of(text):
    return int(re.fullmatch(r"(\d+)s", str(text))[1])


# ---- the image's configuration

def variables():
    """name -> default, of the built-in configuration."""
    return dict(re.findall(r"\$\{(S3DLIO_\w+):-([^}]*)\}", read("docker", "s3dlio-proxy.yaml")))


def test_every_variable_is_documented_with_its_default():
    rows = dict(re.findall(r"^\| `(S3DLIO_PROXY_\w+)` \| `([^`]*)` \|", read("docker", "README.md"), re.M))
    assert rows == variables() and len(rows) > 20


def test_the_built_in_configuration_is_good():
    code, _, err = run(["-c", CONF, "--test"], env=KEYS)
    assert code == 0, err
    code, out, err = run(["-c", CONF, "--test"], env={"S3DLIO_PROXY_CREDENTIALS": "none",
                                                      "S3DLIO_PROXY_ENDPOINT": "http://127.0.0.1:1"})
    assert code == 0, err


OTHERS = {"S3DLIO_PROXY_WORKERS": "7", "S3DLIO_PROXY_LOG_LEVEL": "warn", "S3DLIO_PROXY_ACCESS_LOG": "stdout",
          "S3DLIO_PROXY_ACCESS_LOG_FORMAT": "combined", "S3DLIO_PROXY_CONNECTIONS": "777", "S3DLIO_PROXY_MEMORY": "77MiB",
          "S3DLIO_PROXY_SHUTDOWN_TIMEOUT": "7s", "S3DLIO_PROXY_CACHE": "777MiB", "S3DLIO_PROXY_SLICE_SIZE": "512KiB",
          "S3DLIO_PROXY_FRESH_FOR": "7m", "S3DLIO_PROXY_STALE_IF_ERROR": "77s",
          "S3DLIO_PROXY_ENDPOINT": "https://s3.example.com", "S3DLIO_PROXY_REGION": "somewhere-7",
          "S3DLIO_PROXY_ADDRESSING": "virtual", "S3DLIO_PROXY_CREDENTIALS": "env", "S3DLIO_PROXY_HTTP2": "off",
          "S3DLIO_PROXY_ORIGIN_CONNECTIONS": "77", "S3DLIO_PROXY_PART_SIZE": "7MiB", "S3DLIO_PROXY_MAX_IN_FLIGHT": "5",
          "S3DLIO_PROXY_CA_FILE": "/etc/hostname", "S3DLIO_PROXY_LISTEN": "127.0.0.1:7777",
          "S3DLIO_PROXY_ADMIN_ALLOW": "10.77.0.0/16", "S3DLIO_PROXY_CACHE_HEADER": "refresh"}


def test_every_variable_does_something():
    assert set(OTHERS) == set(variables())
    code, plain, err = run(["-c", CONF, "--dump"], env=KEYS)
    assert code == 0, err
    for name, value in OTHERS.items():
        code, out, err = run(["-c", CONF, "--dump"], env={**KEYS, name: value})
        assert code == 0, (name, err)
        assert out != plain and value in out, name


# ---- the Dockerfile

def packages_after(text, begin):
    """The packages of the first `apt-get install` behind `begin`."""
    after = text[text.index(begin):]
    words = re.search(r"--no-install-recommends(.*?)&&", after, re.S)[1].replace("\\\n", " ").split()
    return set(words)


def test_the_image_is_built_with_what_a_build_needs():
    need = set(re.search(r"^PACKAGES=\(([^)]*)\)", read("quickstart"), re.M)[1].split()) - {"ca-certificates", "curl"}
    have = packages_after(read("docker", "Dockerfile"), "AS build")
    assert need <= have, "quickstart installs more than docker/Dockerfile: %s" % (need - have)


def test_the_image_has_every_library_the_binaries_need():
    if not shutil.which("dpkg-query") or "bookworm" not in read_or_empty("/etc/os-release"):
        pytest.skip("the names of Debian 12's packages are asked of its dpkg")
    there = packages_after(read("docker", "Dockerfile"), "FROM ${BASE}\n") | {"libc6"}
    for binary in ("s3dlio-proxy", "s3dlio-cli"):
        for lib in re.findall(r"=> (/\S+)", output(["ldd", os.path.join(TOP, binary)])):
            found = owner(lib)
            assert found in there, "%s of package %s is not installed in docker/Dockerfile" % (lib, found)


def read_or_empty(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except OSError:
        return ""


def owner(lib):
    for path in (lib, os.path.realpath(lib), "/usr" + lib, lib.removeprefix("/usr")):
        r = subprocess.run(["dpkg-query", "-S", path], capture_output=True, text=True, check=False)
        if r.returncode == 0:
            return r.stdout.split(":")[0]
    raise AssertionError("no package has " + lib)


def test_shell_scripts_pass_shellcheck():
    binary = shutil.which("shellcheck")
    if not binary:
        assert not conftest.CI, "shellcheck is required in CI: tests/run installs it"
        pytest.skip("no shellcheck")
    output([binary, os.path.join(DOCKER, "test-image"), os.path.join(DOCKER, "demo.sh")])


# ---- compose

def composed(name, **env):
    out = output([tool("compose-config"), "-format", "json", name], cwd=DOCKER, env={**environment(), **env})
    return json.loads(out)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cluster.yaml"])
def test_compose_files_load_and_are_hardened(name):
    services = composed(name)["services"]
    assert {"origin", "demo"} < set(services)
    for n, s in services.items():
        if n == "origin":
            continue
        assert s["read_only"] and s["cap_drop"] == ["ALL"] and s["security_opt"] == ["no-new-privileges:true"], n
        for port in s.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", n
        for volume in s.get("volumes", []):
            if volume["type"] == "bind":
                assert os.path.exists(volume["source"]), volume
        for needed in s.get("depends_on", {}):
            assert needed in services
    proxies = [s for s in services.values() if s["image"] == "s3dlio-proxy" and "entrypoint" not in s]
    assert len(proxies) == (1 if name == "compose.yaml" else 3)
    for s in proxies:
        env = dict(e.split("=", 1) for e in s["environment"]) if isinstance(s["environment"], list) else s["environment"]
        assert {n for n in env if n.startswith("S3DLIO_")} <= set(variables())
        code, _, err = run(["-c", CONF, "--test"], env=env)
        assert code == 0, err
        limit = s["mem_limit"] if str(s["mem_limit"]).isdigit() else bytes_of(s["mem_limit"])
        assert bytes_of(env["S3DLIO_PROXY_CACHE"]) + bytes_of(variables()["S3DLIO_PROXY_MEMORY"]) + 512 * MIB <= int(limit)
        assert seconds_of(env["S3DLIO_PROXY_SHUTDOWN_TIMEOUT"]) < seconds_of(s["stop_grace_period"])


def test_the_front_of_the_compose_cluster_names_its_nodes():
    services = composed("compose.cluster.yaml")["services"]
    env = services["front"]["environment"]
    env = dict(e.split("=", 1) for e in env) if isinstance(env, list) else env
    named = {env["S3DLIO_HAPROXY_NODE%d" % i] for i in (1, 2, 3)}
    assert named == {"%s:8080" % n for n, s in services.items() if n.startswith("node")} and len(named) == 3
    known = set(re.findall(r"S3DLIO_HAPROXY_\w+", read("docker", "haproxy", "haproxy.cfg")))
    assert {n for n in env if n.startswith("S3DLIO_")} <= known


# ---- Kubernetes

@pytest.fixture(scope="module", params=["node-local", "shared"])
def manifests(request):
    text = output([tool("kustomize"), "build", os.path.join(DOCKER, "kubernetes", "overlays", request.param)])
    found = {(m["kind"], m["metadata"]["name"]): m for m in yaml.safe_load_all(text)}
    assert len(found) == text.count("\nkind:")
    return found


def workloads(manifests):
    return [m for (kind, _), m in manifests.items() if kind in ("DaemonSet", "StatefulSet", "Deployment")]


def of_kind(manifests, kind):
    return [m for (k, _), m in manifests.items() if k == kind]


def selects(selector, pod_template):
    return selector.items() <= pod_template["metadata"]["labels"].items()


def test_manifests_fit_the_schemas_of_kubernetes(manifests):
    validator = pytest.importorskip("kubernetes_validate") if not conftest.CI else __import__("kubernetes_validate")
    for m in manifests.values():
        for version in KUBERNETES:
            assert validator.validate(m, version, strict=True) == version


def test_manifests_are_in_one_namespace(manifests):
    names = {m["metadata"].get("namespace") for (kind, _), m in manifests.items() if kind != "Namespace"}
    assert names == {"s3dlio"} and ("Namespace", "s3dlio") in manifests


def test_pods_refer_to_what_there_is(manifests):
    for w in workloads(manifests):
        template = w["spec"]["template"]
        spec = template["spec"]
        assert selects(w["spec"]["selector"]["matchLabels"], template)
        assert ("ServiceAccount", spec["serviceAccountName"]) in manifests
        volumes = {v["name"]: v for v in spec.get("volumes", [])}
        for v in volumes.values():
            if "configMap" in v:
                assert ("ConfigMap", v["configMap"]["name"]) in manifests
        for c in spec["containers"]:
            assert ":" in c["image"] and not c["image"].endswith(":latest")
            for source in c.get("envFrom", []):
                if "configMapRef" in source:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in manifests
                else:
                    assert source["secretRef"]["optional"] is True
            assert {m["name"] for m in c["volumeMounts"]} <= set(volumes)
            ports = {p["name"] for p in c["ports"]}
            for probe in ("livenessProbe", "readinessProbe"):
                assert c[probe]["httpGet"]["port"] in ports and c[probe]["httpGet"]["path"].startswith("/_s3dlio/")
        if w["kind"] == "StatefulSet":
            assert manifests["Service", w["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"


def test_services_policies_and_budgets_select_pods_there_are(manifests):
    templates = [w["spec"]["template"] for w in workloads(manifests)]
    selectors = [s["spec"]["selector"] for s in of_kind(manifests, "Service")]
    selectors += [b["spec"]["selector"]["matchLabels"] for b in of_kind(manifests, "PodDisruptionBudget")]
    for policy in of_kind(manifests, "NetworkPolicy"):
        selectors.append(policy["spec"]["podSelector"]["matchLabels"])
        selectors += [f["podSelector"]["matchLabels"] for rule in policy["spec"]["ingress"] for f in rule["from"]]
    for s in selectors:
        assert sum(selects(s, t) for t in templates) == 1, s
    for service in of_kind(manifests, "Service"):
        template = next(t for t in templates if selects(service["spec"]["selector"], t))
        ports = {p["name"] for c in template["spec"]["containers"] for p in c["ports"]}
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= ports
    budgets = [b["spec"]["selector"]["matchLabels"] for b in of_kind(manifests, "PodDisruptionBudget")]
    for w in workloads(manifests):
        if w["kind"] != "DaemonSet":   # whose pods are not moved
            assert any(selects(b, w["spec"]["template"]) for b in budgets), w["metadata"]["name"]


def test_pods_are_hardened_and_bounded(manifests):
    for w in workloads(manifests):
        spec = w["spec"]["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
        for c in spec["containers"]:
            assert c["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                            "capabilities": {"drop": ["ALL"]}}
            assert {"cpu", "memory"} <= set(c["resources"]["limits"]) and {"cpu", "memory"} <= set(c["resources"]["requests"])


def test_the_proxys_pods_have_room_and_time_for_what_they_are_told(manifests):
    user = re.search(r"^USER (\d+):(\d+)$", read("docker", "Dockerfile"), re.M)
    pods = [w["spec"]["template"]["spec"] for w in workloads(manifests) if w["metadata"]["name"] == "s3dlio-proxy"]
    assert len(pods) == 1
    for spec in pods:
        c = spec["containers"][0]
        source = next(s["configMapRef"]["name"] for s in c["envFrom"] if "configMapRef" in s)
        env = manifests["ConfigMap", source]["data"]
        assert set(env) <= set(variables())
        code, out, err = run(["-c", CONF, "--dump"], env={**KEYS, **env})
        assert code == 0, err
        cache = yaml.safe_load(out)["caches"]["main"]
        assert (bytes_of(env["S3DLIO_PROXY_CACHE"]) + bytes_of(env["S3DLIO_PROXY_MEMORY"]) + bytes_of(cache["index"])
                <= bytes_of(c["resources"]["limits"]["memory"]))
        wait = int(c["lifecycle"]["preStop"]["exec"]["command"][1])
        assert wait + seconds_of(env["S3DLIO_PROXY_SHUTDOWN_TIMEOUT"]) < spec["terminationGracePeriodSeconds"]
        assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (int(user[1]), int(user[2]))


def test_the_shared_overlay_names_every_node_and_takes_haproxys_own_file(manifests):
    if ("DaemonSet", "s3dlio-proxy") in manifests:   # node-local: there is no front
        assert not of_kind(manifests, "Deployment") and not of_kind(manifests, "StatefulSet")
        return
    nodes = manifests["StatefulSet", "s3dlio-proxy"]["spec"]
    front = manifests["Deployment", "s3dlio-front"]["spec"]["template"]["spec"]
    env = {e["name"]: e.get("value") for e in front["containers"][0]["env"]}
    for i in range(nodes["replicas"]):
        name = "s3dlio-proxy-%d.%s.$(NAMESPACE).svc.cluster.local:8080" % (i, nodes["serviceName"])
        assert env.pop("S3DLIO_HAPROXY_NODE%d" % (i + 1)) == name
    assert not [n for n in env if "NODE" in n]
    mounted = next(v["configMap"]["name"] for v in front["volumes"] if "configMap" in v)
    assert manifests["ConfigMap", mounted]["data"]["haproxy.cfg"] == read("docker", "haproxy", "haproxy.cfg")


