#!/usr/bin/env bash
# Application properties: an integer that needs more than 32 bits, say a time in milliseconds or a snowflake id.
#
# AMQP 1.0 has long and ulong for it (section 1.6), and Python and JavaScript have integers of any size. One would guess
# that a client writes a long, and reads one back as an integer. Instead:
#
#   rhea 3.0.5 (npm)               writes a BigInt as an empty map, without an error; it reads a long or ulong above 2**53 as a Buffer,
#                                  which it writes as binary when it passes the property on.
#   azure-eventhub 5.15.1 (PyPI)   writes every int as an int of 32 bits: from 2**31 on, ValueError when the event is added.
#                                  (Its former transport, uamqp, wrote a long.)
#   python-qpid-proton 0.40.0      does as guessed.
#
# Needs npm, python3 with venv, and a C compiler (python-qpid-proton has no wheels for Linux).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat >numbers.mjs <<'JS'
import rhea from 'rhea';
const { message, types } = rhea;
const roundTrip = (v) => message.decode(message.encode({ application_properties: { v }, body: '' })).application_properties.v;
const show = (v) => (Buffer.isBuffer(v) ? `Buffer ${v.toString('hex')}` : `${typeof v} ${JSON.stringify(v)}`);
const big = types.wrap_long(Buffer.from('0123456789abcdef', 'hex'));
console.log(`rhea: the number 2**40 is read as ${show(roundTrip(2 ** 40))}`);
console.log(`rhea: the BigInt 10n is read as ${show(roundTrip(10n))}`);
console.log(`rhea: a long of 0x0123456789abcdef is read as ${show(roundTrip(big))}`);
const passedOn = message.encode({ application_properties: { v: roundTrip(big) }, body: '' });
console.log(`rhea: and passed on as ${passedOn.includes('a0080123456789abcdef', 'hex') ? 'binary of 8 bytes' : 'something else'}`);
JS

cat >events.py <<'PY'
from azure.eventhub import EventData, EventDataBatch

for number in (2**31 - 1, 2**31):
    event = EventData(b"")
    event.properties = {"v": number}
    try:
        EventDataBatch(max_size_in_bytes=1 << 20).add(event)
        print(f"azure-eventhub: {number} is added")
    except ValueError as error:
        print(f"azure-eventhub: {number}: ValueError: {error}")
PY

cat >messages.py <<'PY'
from proton import Message

for number in (2**31, 0x0123456789ABCDEF):
    sent, read = Message(), Message()
    sent.properties = {"v": number}
    read.decode(sent.encode())
    print(f"proton: {number} is read as {type(read.properties['v']).__name__} {read.properties['v']}")
PY

npm install --silent --no-fund --no-audit rhea@3.0.5 >npm.log 2>&1 || { cat npm.log; exit 2; }
for package in azure-eventhub==5.15.1 python-qpid-proton==0.40.0; do
    python3 -m venv "${package%%=*}"
    "${package%%=*}/bin/pip" install -q --disable-pip-version-check "$package"
done

{ node numbers.mjs; azure-eventhub/bin/python events.py; python-qpid-proton/bin/python messages.py; } | tee seen
diff - seen <<'SEEN' || { echo "the behaviour has changed"; exit 1; }
rhea: the number 2**40 is read as number 1099511627776
rhea: the BigInt 10n is read as object {}
rhea: a long of 0x0123456789abcdef is read as Buffer 0123456789abcdef
rhea: and passed on as binary of 8 bytes
azure-eventhub: 2147483647 is added
azure-eventhub: 2147483648: ValueError: Value supplied for int invalid: 2147483648
proton: 2147483648 is read as int 2147483648
proton: 81985529216486895 is read as int 81985529216486895
SEEN
echo "as described (rhea 3.0.5, azure-eventhub 5.15.1, python-qpid-proton 0.40.0)"
