"""Real origins as child processes: moto, versitygw (checks signatures), nginx (http, and h2), nghttpd and nghttpx (h2)."""
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
    for d in (tmp, root):   # workers may run as another user
        d.chmod(0o755)
    s = _nginx(tmp, port, NGINX.format(tmp=tmp, port=port, root=root))
    s.root = root
    return s


def _nginx(tmp, port, text):
    conf = tmp / "nginx.conf"
    conf.write_text(text)
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    return Server([binary, "-p", str(tmp), "-c", str(conf), "-e", str(tmp / "nginx-error.log")], port,
                  str(tmp / "nginx.out"))


NGINX_H2 = """
worker_processes 1;
daemon off;
master_process off;
pid {tmp}/nginx.pid;
error_log {tmp}/nginx-error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log {tmp}/nginx-access.log;
    client_body_temp_path {tmp}/www/body;
    proxy_temp_path {tmp}/proxy;
    fastcgi_temp_path {tmp}/fastcgi;
    uwsgi_temp_path {tmp}/uwsgi;
    scgi_temp_path {tmp}/scgi;
    default_type application/octet-stream;
    sendfile on;
    client_max_body_size 0;
    keepalive_requests 40;
    http2_max_concurrent_streams 16;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    server {{
        listen 127.0.0.1:{port} ssl http2;
        listen 127.0.0.1:{h1_port} ssl;
        listen 127.0.0.1:{clear_port} http2;
        root {tmp}/www;
        location / {{ dav_methods PUT DELETE; create_full_put_path on; }}
        location /list/ {{ autoindex on; }}
    }}
}}
"""


def nginx_h2(tmp, cert, key):
    """`port`: TLS, h2 by ALPN; `h1_port`: TLS without h2; `clear_port`: h2 with prior knowledge. 40 requests to a
    connection, then GOAWAY; PUT and DELETE."""
    port, h1_port, clear_port = net.free_port(), net.free_port(), net.free_port()
    root = tmp / "www"
    for d in (root, root / "body", root / "list"):
        d.mkdir()
    for d in (tmp, root):
        d.chmod(0o755)
    (root / "body").chmod(0o777)
    s = _nginx(tmp, port, NGINX_H2.format(tmp=tmp, port=port, h1_port=h1_port, clear_port=clear_port, cert=cert, key=key))
    s.root, s.h1_port, s.clear_port = root, h1_port, clear_port
    return s


def program(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")


def nghttpd(tmp, cert=None, key=None):
    """A file server that speaks nothing but h2."""
    port, root = net.free_port(), tmp / "www"
    root.mkdir()
    argv = [program("nghttpd"), "--address=127.0.0.1", "-d", str(root), *([] if cert else ["--no-tls"]), str(port)]
    s = Server(argv + ([key, cert] if cert else []), port, str(tmp / "nghttpd.log"))
    s.root = root
    return s


def nghttpx(tmp, backend_port, cert=None, key=None):
    """h2 (TLS with ALPN, or prior knowledge) in front of an HTTP/1.1 server."""
    port = net.free_port()
    argv = [program("nghttpx"), "--conf=/dev/null", "--single-process", "--no-ocsp", "--workers=1", "--errorlog-file=/dev/stderr",
            "--accesslog-file=/dev/null", "--frontend=127.0.0.1,%d%s" % (port, "" if cert else ";no-tls"),
            "--backend=127.0.0.1,%d" % backend_port]
    return Server(argv + ([key, cert] if cert else []), port, str(tmp / "nghttpx.log"))
