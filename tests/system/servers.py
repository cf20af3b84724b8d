"""Real origins as child processes: moto, versitygw (checks signatures), nginx (plain http)."""
import os
import shutil
import subprocess
import sys

import net

ACCESS, SECRET, REGION = "TESTACCESSKEY0000001", "test/secret+key=0000000000000000000000001", "us-east-1"
HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))


class Server:
    def __init__(self, argv, port, log, env=None):
        self.port, self.url = port, "http://127.0.0.1:%d" % port
        self.log = log
        with open(log, "wb") as f:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=f, env=env)
        try:
            net.wait_until("%s on port %d (log: %s)" % (argv[0], port, log), self._up, 60)
        except AssertionError:
            self.stop()
            raise

    def _up(self):
        if self.process.poll() is not None:
            with open(self.log, errors="replace") as f:
                raise RuntimeError("server ended at once: " + f.read()[-2000:])
        return net.can_connect(self.port)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def moto(tmp):
    port = net.free_port()
    env = dict(os.environ, AWS_ACCESS_KEY_ID=ACCESS, AWS_SECRET_ACCESS_KEY=SECRET)
    return Server([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port,
                  str(tmp / "moto.log"), env)


def versitygw_binary():
    for p in (os.environ.get("S3P_VERSITYGW"), os.path.join(TOP, "build/go-bin/versitygw"), shutil.which("versitygw")):
        if p and os.access(p, os.X_OK):
            return p
    return None


def versitygw(tmp):
    port = net.free_port()
    root, iam = tmp / "vgw-data", tmp / "vgw-iam"
    root.mkdir()
    iam.mkdir()
    argv = [versitygw_binary(), "--access", ACCESS, "--secret", SECRET, "--region", REGION,
            "--port", "127.0.0.1:%d" % port, "--keep-alive", "--iam-dir", str(iam), "posix", str(root)]
    s = Server(argv, port, str(tmp / "versitygw.log"))
    s.root = root
    return s


NGINX = """
worker_processes 1;
daemon off;
master_process off;
pid {tmp}/nginx.pid;
error_log {tmp}/nginx-error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log {tmp}/nginx-access.log;
    client_body_temp_path {tmp}/body;
    proxy_temp_path {tmp}/proxy;
    fastcgi_temp_path {tmp}/fastcgi;
    uwsgi_temp_path {tmp}/uwsgi;
    scgi_temp_path {tmp}/scgi;
    types {{ text/plain txt; text/html html; }}
    default_type application/octet-stream;
    sendfile on;
    keepalive_timeout 65;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        location / {{ }}
        location /list/ {{ autoindex on; }}
        location /fresh/ {{ expires 60s; }}
        location /private/ {{ add_header Cache-Control "private, no-store"; }}
    }}
}}
"""


def nginx(tmp):
    port = net.free_port()
    root = tmp / "www"
    root.mkdir()
    conf = tmp / "nginx.conf"
    conf.write_text(NGINX.format(tmp=tmp, port=port, root=root))
    for d in (tmp, root):   # workers may run as another user
        d.chmod(0o755)
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    s = Server([binary, "-p", str(tmp), "-c", str(conf), "-e", str(tmp / "nginx-error.log")], port,
               str(tmp / "nginx.out"))
    s.root = root
    return s
