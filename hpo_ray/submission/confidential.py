"""What looks like a secret, by a file's name and by what is in it.

Knows names and bytes; nothing of folders, git or the cluster.
"""

from __future__ import annotations

import fnmatch
import re

# Larger files are data: nobody keeps a key in them.
LOOKED_INTO = 2**20

_NAMES = (
    *(".env", ".env.*", "*.env", ".envrc", ".envrc.*", ".netrc", "_netrc", ".pgpass", ".my.cnf", ".mylogin.cnf"),
    *(".pypirc", ".npmrc", ".git-credentials", ".htpasswd", ".boto", ".s3cfg", "*passwd-s3fs", "rclone.conf"),
    *(".databrickscfg", ".dockercfg", ".dockerconfigjson", "kubeconfig*", "*.kubeconfig", "auth_token*", "kaggle.json"),
    *(".vault-token", ".vault_pass*", "*.tfstate", "*.tfstate.*", "*.tfvars", "*.tfvars.json", "*.tfrc.json"),
    *("*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.pkcs12", "*.jks", "*.keystore", "*.ppk", "*.ovpn", "*.gpg"),
    *("*.kdb", "*.kdbx", "*.secret", "*.token", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", ".*_history"),
    *("application_default_credentials*", "access_tokens.db", "client_secret*.json"),
)
# With these endings alone: `secrets.py` and `tokenizer.json` are the user's code and a model's.
_STEMS = (
    *(
        f"{pre}{word}{post}"
        for word in ("secret", "credential", "password")
        for pre in ("", "*[-_.]")
        for post in ("", "s")
    ),
    *(f"{word}{post}" for word in ("secret", "credential", "password") for post in ("[-_.]*", "s[-_.]*")),
    *("passwd", "*[-_.]passwd", "token", "*[-_.]token", "rootkey", "*accesskey", "*accesskeys", "*access[-_]key"),
    *("*access[-_]keys", "*apikey", "*apikeys", "*api[-_]key", "*api[-_]keys", "*service[-_]account*"),
    *("*serviceaccount*", "*private[-_]key"),
)
_ENDINGS = ("", "json", "yaml", "yml", "toml", "ini", "cfg", "conf", "csv", "tsv", "txt", "xml", "db", "properties")
_KEY_FILES = ("*[-_]key.json", "*[-_]key.txt")
_FOLDERS = {"secrets", "credentials"}

_CONTENTS = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----"
    rb"|PuTTY-User-Key-File-\d"
    rb"|\"type\"\s*:\s*\"service_account\""
    rb"|(?i:aws_?secret_?access_?key)[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])"
    rb"|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{60}|\bglpat-[\w-]{20}|\bxox[abprs]-[\w-]{20}|\bhf_[A-Za-z0-9]{34}\b"
)
_AWS_ID = re.compile(rb"\b(?:AKIA|ASIA)(?![0-9A-Z]{9}EXAMPLE)[0-9A-Z]{16}\b")
_AWS_SECRET = re.compile(rb"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])")
_NEAR = 400  # bytes


def is_secret(name: str) -> bool:
    """Whether a relative path looks like a secret's."""
    *above, last = name.lower().split("/")
    stem, dot, ending = last.rpartition(".")
    stem, ending = (stem, ending) if dot and stem else (last, "")
    if any(fnmatch.fnmatchcase(last, pattern) for pattern in (*_NAMES, *_KEY_FILES)):
        return True
    by_stem = any(fnmatch.fnmatchcase(stem, pattern) for pattern in _STEMS)
    return ending in _ENDINGS and (by_stem or not _FOLDERS.isdisjoint(above))


def holds_secret(content: bytes, token: str | None) -> bool:
    """Whether a file's content has a secret in it: a private key, a service's access key, or the cluster's token."""
    if (token and token.encode() in content) or _CONTENTS.search(content):
        return True
    ids = _AWS_ID.finditer(content)
    return any(_AWS_SECRET.search(content, max(0, found.start() - _NEAR), found.end() + _NEAR) for found in ids)
