#!/usr/bin/env bash
# Request and reply: what becomes of a message-id that a responder copies, as it was read, into correlation-id.
#
# AMQP 1.0 (section 3.2.4) has four types of message-id: ulong, uuid, binary, string. One would guess that a library writes
# back what it read. For a binary id two do not:
#
#   rhea 3.0.5 (npm)                 reads a Buffer, and writes every Buffer as a uuid: padded with zeros to 16 bytes, or
#                                    cut to 16. The same befalls a ulong above 2**53, which it reads as a Buffer, too.
#   python-qpid-proton 0.40.0 (PyPI) reads a memoryview, and takes none as an id: no error, no correlation-id.
#
# The requester waits for an answer that came. With string or uuid ids (and ulong below 2**53) both answer right; so
# does a responder that wraps the id itself: types.wrap_binary(id) in rhea, bytes(id) in Proton.
#
# Needs npm, python3 with venv, and a C compiler (python-qpid-proton has no wheels for Linux).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat >rhea.mjs <<'JS'
import rhea from 'rhea';
const { message, types } = rhea;
const binary = (text) => types.wrap_binary(Buffer.from(text));
const ids = {
  'string "abc"': 'abc',
  'ulong 5': types.wrap_ulong(5),
  'ulong 2**63-1': types.wrap_ulong(Buffer.from('7fffffffffffffff', 'hex')),
  'binary of 3 bytes': binary('abc'),
  'binary of 20 bytes': binary('0123456789abcdefghij'),
};
for (const [name, id] of Object.entries(ids)) {
  const request = message.decode(message.encode({ message_id: id, body: '' }));
  const reply = message.encode({ correlation_id: request.message_id, body: '' });
  // descriptor (3), list32 with its size and count (9), five nulls: then the correlation-id, up to the body (00 53 77)
  const at = reply.indexOf(Buffer.from('005373', 'hex')) + 12 + 5;
  console.log(`rhea: ${name} comes back as ${reply.subarray(at, reply.lastIndexOf(Buffer.from('005377', 'hex'))).toString('hex')}`);
}
JS

cat >echo.py <<'PY'
import uuid

from proton import Message, ulong

ids = {
    'string "abc"': "abc",
    "ulong 5": ulong(5),
    "uuid": uuid.UUID(int=1),
    "binary of 3 bytes": b"abc",
}
for name, message_id in ids.items():
    request, reply, seen = Message(), Message(), Message()
    request.id = message_id
    request.decode(request.encode())
    reply.correlation_id = request.id
    seen.decode(reply.encode())
    print(f"proton: {name} comes back as {seen.correlation_id!r}")
PY

npm install --silent --no-fund --no-audit rhea@3.0.5 >npm.log 2>&1 || { cat npm.log; exit 2; }
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check python-qpid-proton==0.40.0

{ node rhea.mjs; venv/bin/python echo.py; } | tee seen
diff - seen <<'SEEN' || { echo "the behaviour has changed"; exit 1; }
rhea: string "abc" comes back as a103616263
rhea: ulong 5 comes back as 5305
rhea: ulong 2**63-1 comes back as 987fffffffffffffff0000000000000000
rhea: binary of 3 bytes comes back as 9861626300000000000000000000000000
rhea: binary of 20 bytes comes back as 9830313233343536373839616263646566
proton: string "abc" comes back as 'abc'
proton: ulong 5 comes back as 5
proton: uuid comes back as UUID('00000000-0000-0000-0000-000000000001')
proton: binary of 3 bytes comes back as None
SEEN
echo "as described (rhea 3.0.5, python-qpid-proton 0.40.0)"
