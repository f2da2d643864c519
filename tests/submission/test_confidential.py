"""What is taken for a secret, and what isn't."""

from __future__ import annotations

import pytest

from hpo_ray.submission.confidential import holds_secret, is_secret

# None of these is anybody's; put together here, so that no scanner takes this file for a leak.
KEY = "-----BEGIN OPENSSH PRIVATE " + "KEY-----\nabc"
AWS_ID, AWS_SECRET = "AKIA" + "QWERTYUIOPASDFGH", "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYzzzzzzzzzz"

SECRETS = """
.env .env.local .envrc prod.env conf/aws.env .netrc _netrc .pgpass .pypirc .npmrc .git-credentials .htpasswd .boto
.s3cfg rclone.conf .dockercfg .dockerconfigjson kubeconfig kubeconfig-prod auth_token auth_token.old kaggle.json
.vault-token terraform.tfstate terraform.tfstate.backup prod.tfvars a.pem deploy.key a.p12 a.pfx x.jks mykey.ppk
a.kdbx cluster.token openai.key id_rsa id_dsa id_ed25519.bak credentials credentials.json credentials.csv
credentials.yaml google-credentials.json application_default_credentials.json service_account.json
my-service-account.json serviceAccountKey.json gcp-key.json client_secret_1234.apps.googleusercontent.com.json
accessKeys.csv rootkey.csv me_accessKeys.csv secrets.toml secret.yaml secrets.prod.yaml db-secrets.json token
token.txt token.json hf_token hf_token.txt passwords.txt db_password.txt api_key.txt apikey secrets/db.yaml
package/Credentials.JSON private_key.json .bash_history
"""
HARMLESS = """
my.py secrets.py credentials.py token.py tokens.py secrets/__init__.py passwords/model.py tokenizer.json
tokenizer_config.json special_tokens_map.json added_tokens.json vocab.txt keys.py key.py keyboard.yaml
conf/experiment/mine.yaml conf/config.yaml requirements.txt pyproject.toml .gitignore .python-version Makefile
README.md environment.yml data/answers.csv monkey.json turkey.json package/model.py weights.pt id_map.json
environment.py
"""


@pytest.mark.parametrize("name", SECRETS.split())
def test_a_secrets_name_is_known_in_any_folder_and_case(name: str) -> None:
    assert is_secret(name)
    assert is_secret(f"a/b/{name}")
    assert is_secret(name.upper())


@pytest.mark.parametrize("name", HARMLESS.split())
def test_code_and_configuration_are_none(name: str) -> None:
    assert not is_secret(name)
    assert not is_secret(f"a/b/{name}")


@pytest.mark.parametrize(
    "content",
    [
        KEY,
        f'{{"a": "{KEY}"}}',
        KEY.replace("OPENSSH ", ""),
        KEY.replace("OPENSSH", "PGP").replace("KEY-", "KEY BLOCK-"),
        "PuTTY-User-Key-File-3: ssh-ed25519",
        '{"project_id": "x", "type" : "service_account"}',
        f"Access key ID,Secret access key\n{AWS_ID},{AWS_SECRET}\n",
        f"id = '{AWS_ID.replace('AKIA', 'ASIA')}'\n# and\nkey = '{AWS_SECRET}'",
        f"AWS_SECRET_ACCESS_KEY='{AWS_SECRET}'",
        f'"SecretAccessKey": 1, "awsSecretAccessKey": "{AWS_SECRET}"',
        "token = 'ghp_" + "a1B2" * 9 + "'",
        "hf_" + "a" * 34,
        "the token is t0k3n-of-the-cluster",
    ],
)
def test_a_secret_is_known_by_what_it_is(content: str) -> None:
    assert holds_secret(content.encode(), "t0k3n-of-the-cluster")


@pytest.mark.parametrize(
    "content",
    [
        "AKIA" + "IOSFODNN7EXAMPLE" + " wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # of AWS's own pages
        f"{AWS_ID} and no secret with it",
        f"sha1 {'0123456789' * 4}",
        "-----BEGIN CERTIFICATE-----\nabc",
        "-----BEGIN PUBLIC " + "KEY-----",
        "key = os.environ['AWS_SECRET_ACCESS_KEY']",
        "re.compile('-----BEGIN [A-Z ]*PRIVATE KEY-----')",
        "",
    ],
)
def test_what_only_speaks_of_secrets_is_none(content: str) -> None:
    assert not holds_secret(content.encode(), None)
