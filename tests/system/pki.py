"""Certificates for tests: a CA and what it signs, valid or not, made in a moment."""
import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

DAY = datetime.timedelta(days=1)


def _write(path, *parts):
    path.write_bytes(b"".join(parts))


def _key_pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class Pki:
    def __init__(self, tmp):
        self.tmp = tmp
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test CA")])
        cert = self._build(self.name, self.key, DAY * 30).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), True).sign(self.key, hashes.SHA256())
        self.ca = tmp / "ca.pem"
        _write(self.ca, cert.public_bytes(serialization.Encoding.PEM))

    def _build(self, subject, key, until, since=-DAY):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now + since).not_valid_after(now + until))

    def make(self, file, names=("localhost",), until=DAY * 30, since=-DAY, rsa_bits=None, common_name=None):
        """(certificate file, key file). Names that are addresses become IP entries."""
        key = rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name or names[0])])
        alt = [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        cert = (self._build(subject, key, until, since).add_extension(x509.SubjectAlternativeName(alt), False)
                .sign(self.key, hashes.SHA256()))
        pem, key_file = self.tmp / (file + ".pem"), self.tmp / (file + ".key")
        _write(pem, cert.public_bytes(serialization.Encoding.PEM))
        _write(key_file, _key_pem(key))
        return str(pem), str(key_file)
