/* test_trace.c - frames as text and back: every form of the notation, its errors, and round trips of random values. */
#include "check.h"
#include "uam_codec.h"

static const char *dump(const uint8_t *p, size_t n, int flags, size_t *used) {
  static char text[1 << 16];
  int64_t len = uam_dump(p, n, flags, text, sizeof text - 1, used);
  CHECK(len >= 0 && (size_t)len < sizeof text);
  text[len] = '\0';
  return text;
}

static uint8_t bytes[1 << 16];

static size_t undump(const char *text) {
  int64_t n = uam_undump(text, strlen(text), bytes, sizeof bytes);
  if (n < 0) FAIL("%s: %s", text, (const char *)bytes);
  int64_t need = uam_undump(text, strlen(text), NULL, 0);
  CHECK(need >= n);
  return n < 0 ? 0 : (size_t)n;
}

/* Text to bytes and the same text again. */
static void round_trip(const char *text) {
  size_t used, n = undump(text);
  const char *again = dump(bytes, n, 1, &used);
  if (n == 0 || used != n || strcmp(text, again) != 0) FAIL("%s came back as %s", text, again);
  CHECK(n != 0);
}

static void expect_bytes(const char *text, const char *hex) {
  static char got[1 << 12];
  size_t n = undump(text);
  for (size_t i = 0; i < n; i++) snprintf(got + 2 * i, 3, "%02x", bytes[i]);
  got[2 * n] = '\0';
  CHECK(n != 0);
  if (strcmp(got, hex) != 0) FAIL("%s gave %s, not %s", text, got, hex);
}

static void expect_dump(const char *text, int flags, const char *want) {
  size_t used, n = undump(text);
  const char *got = dump(bytes, n, flags, &used);
  CHECK(used == n);
  if (strcmp(got, want) != 0) FAIL("%s was dumped as %s", text, got);
}

static void expect_error(const char *text, const char *why) {
  char message[128];
  CHECK(uam_undump(text, strlen(text), (uint8_t *)message, sizeof message) == UAM_ERR_ARG);
  if (strncmp(message, why, strlen(why)) != 0) FAIL("%s: %s instead of %s", text, message, why);
}

static void test_bytes(void) {
  expect_bytes("AMQP 0.1.0.0", "414d515000010000");
  expect_bytes("SASL 3.1.0.0", "414d515003010000");
  expect_bytes("ch=0 empty", "0000000802000000");
  expect_bytes("ch=258 empty", "0000000802000102");
  expect_bytes("ch=0 open(container-id=\"x\")", "000000110200000000"
                                                "5310c00401a10178");
  expect_bytes("ch=0 open(container-id=\"x\" hostname=null)", "000000110200000000"
                                                              "5310c00401a10178");
  expect_bytes("ch=0 open()", "0000000c0200000000531045");
  expect_bytes("sasl-init(mechanism=:PLAIN)", "00000015020100000053"
                                              "41c00801a305504c41494e");
  expect_bytes("ch=1 transfer(handle=0 delivery-id=1 delivery-tag=h'01 02' more=true) payload=h'0053'",
               "0000001a02000001005314c00b06435201a00201024040410053");
  expect_bytes("ch=1 flow(incoming-window=256)", "00000014020000010053"
                                                 "13c0070240"
                                                 "7000000100");
  expect_bytes("ch=0 detach(handle=0 closed=true error=error(condition=:a:b))",
               "0000001b02000000005316c00e03434100531dc00601a303613a62");
  expect_bytes("ch=0 close() payload=3B", "0000000f0200000000531845000000");
  expect_bytes("ch=0 close() payload=(data(h'01') amqp-value(null))", "000000160200000000531845005375a0010100537740");
  expect_bytes("raw h'0000 00'", "000000");
  expect_bytes("raw 2B", "0000");
}

static void test_arrays(void) {
  expect_bytes("ch=0 @[1u32 255u32]", "0000000e02000000e004025201ff");
  expect_bytes("ch=0 @[1u32 256u32]", "0000001402000000e00a02700000000100000100");
  expect_bytes("ch=0 @[:a :bc]", "0000001102000000e00702a30161026263");
  expect_bytes("ch=0 @[true false]", "0000000e02000000e00402560100");
  expect_bytes("ch=0 @[null *3]", "0000000c02000000"
                                  "e0020340");
  expect_bytes("ch=0 @symbol[]", "0000000c02000000"
                                 "e00200a3");
  expect_bytes("ch=0 @[-1i32 127i32]", "0000000e02000000e0040254ff7f");
  expect_bytes("ch=0 @[-1i64 128i64]", "0000001c02000000e0120281ffffffffffffffff0000000000000080");
  expect_bytes("ch=0 @[[] [1u8]]", "0000001202000000e00802c0010003015001");
  expect_bytes("ch=0 @[@[1u8] @[2u8]]", "0000001402000000e00a02e00301500103015002");
  expect_bytes("ch=0 @[accepted() accepted()]", "0000001302000000e00902005324c001000100");
  expect_bytes("ch=0 @[accepted() *2]", "0000000f02000000"
                                        "e00502"
                                        "005324"
                                        "45");
}

static const char *const lines[] = {
    "AMQP 0.1.0.0",
    "AMQP 1.1.0.0",
    "TLS 2.1.0.0",
    "SASL 3.1.0.0",
    "ch=0 empty",
    "ch=65535 empty",
    "type=1 empty",
    "type=9 ch=3 ext=h'0102030405060708' empty",
    "ch=0 open(container-id=\"x\" max-frame-size=65536 properties={:a=\"b\"})",
    "ch=0 open(container-id=\"\\\"\\\\\\n\\r\\t\\x00\\xc3\\xa9\\x7f\" channel-max=0 idle-time-out=4294967295)",
    "ch=1 begin(remote-channel=1 next-outgoing-id=4294967295 incoming-window=0 outgoing-window=255 handle-max=256)",
    "ch=0 attach(name=\"l\" handle=0 role=false snd-settle-mode=2 rcv-settle-mode=0 source=source(address=\"q\" durable=2 "
    "expiry-policy=:session-end timeout=1 dynamic=false dynamic-node-properties={:a=1i64} distribution-mode=:move "
    "filter={:f=described(0x468c00000004u64 \"x > 1\")} default-outcome=modified(delivery-failed=true) "
    "outcomes=@[:amqp:accepted:list :amqp:rejected:list] capabilities=@[:queue]) target=target(address=\"t\") "
    "unsettled={h'01'=null} incomplete-unsettled=false initial-delivery-count=0 max-message-size=18446744073709551615 "
    "offered-capabilities=:a desired-capabilities=@symbol[] properties={:p=[1u8 2u16 3u32 4u64 -5i8 -6i16 -7i32 -8i64]})",
    "ch=0 flow(next-incoming-id=0 incoming-window=5 next-outgoing-id=6 outgoing-window=7 handle=1 delivery-count=2 "
    "link-credit=3 available=4 drain=true echo=false properties={})",
    "ch=0 transfer(handle=0 delivery-id=0 delivery-tag=h'01000000' message-format=0 settled=false more=false "
    "rcv-settle-mode=1 state=received(section-number=1 section-offset=300) resume=true aborted=false batchable=true) "
    "payload=h'00537540'",
    "ch=0 disposition(role=true first=0 last=9 settled=true state=rejected(error=error(condition=:amqp:not-found "
    "description=\"no\" info={:k=@[{:a=1u8} {:b=2u8}]})) batchable=true)",
    "ch=0 disposition(role=true first=0 state=released())",
    "ch=0 detach(handle=3 closed=true error=error(condition=:\"with space\"))",
    "ch=0 end(error=error(condition=:\"\"))",
    "ch=0 close()",
    "ch=0 open(container-id=5u32 hostname=:s max-frame-size=5u64)",
    "ch=0 described(0x10u64 [null null null null null null null null null null true])",
    "ch=0 described(0x10u64 \"no list\")",
    "ch=0 described(:amqp:open:list [\"x\"])",
    "ch=0 described(described(0x1u64 true) [])",
    "ch=0 described(0x8000000000000000u64 null)",
    "ch=0 header(durable=true priority=4 ttl=5 first-acquirer=true delivery-count=1)",
    "ch=0 properties(message-id=5u64 user-id=h'61' to=\"a\" absolute-expiry-time=timestamp(-1) creation-time=timestamp(5))",
    "ch=0 [delivery-annotations({}) message-annotations({:x-opt-a=1i32}) application-properties({\"a\"=null}) data(h'') "
    "amqp-sequence([]) amqp-value(true) footer({})]",
    "ch=0 [float(0x3fc00000) double(0x3ff8000000000000) decimal32(h'01020304') decimal64(h'0102030405060708') "
    "decimal128(h'0102030405060708090a0b0c0d0e0f10') char(0x263a) timestamp(-9223372036854775808) "
    "uuid(00112233-4455-6677-8899-aabbccddeeff) 0u8 0u16 0u32 0u64 0i8 0i16 0i32 0i64 -128i8 -32768i16 -2147483648i32 "
    "-9223372036854775808i64 9223372036854775807i64 -129i64 -128i64 128i32]",
    "ch=0 [@[1u8 2u8] @[\"a\" \"bc\"] @[h'' h'01'] @[[1u8] []] @[@[1u8] @uint[]] @[{} {1u8=2u8}] @[null *4] @[true *2] @[[] *1]]",
    "ch=0 [@null[] @boolean[] @ubyte[] @ushort[] @uint[] @byte[] @short[] @int[] @char[] @float[] @ulong[] @long[] "
    "@timestamp[] @double[] @uuid[] @decimal32[] @decimal64[] @decimal128[] @binary[] @string[] @symbol[] @list[] @map[] "
    "@array[] @described(0x24u64 list)[] @described(0x5u64 described(:a uint))[]]",
    "ch=0 @[accepted() accepted()]",
    "ch=0 @[described(0x99u64 described(:x 1u32)) described(0x99u64 described(:x 300u32))]",
    "ch=0 @[received(section-number=1 section-offset=2) received(section-number=5)]",
    "ch=0 5u32 payload=h'00'",
    "sasl-mechanisms(sasl-server-mechanisms=@[:PLAIN :ANONYMOUS])",
    "sasl-init(mechanism=:PLAIN initial-response=h'0061006200' hostname=\"h\")",
    "sasl-challenge(challenge=h'01')",
    "sasl-response(response=h'')",
    "sasl-outcome(code=0 additional-data=h'02')",
    "type=0 ch=0 sasl-outcome(code=1)",
    "type=1 close()",
    "raw h'0000000702000000'",
    "raw h'0000000a02000000a1ff'",
};

static void test_lines(void) {
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) round_trip(lines[i]);
}

static void test_secrets(void) {
  expect_dump("sasl-init(mechanism=:PLAIN initial-response=h'0061006200' hostname=\"h\")", 0,
              "sasl-init(mechanism=:PLAIN initial-response=(5 bytes) hostname=\"h\")");
  expect_dump("sasl-init(mechanism=:PLAIN initial-response=\"pw\")", 0,
              "sasl-init(mechanism=:PLAIN initial-response=(4 bytes))");
  expect_dump("sasl-challenge(challenge=h'0102')", 0, "sasl-challenge(challenge=(2 bytes))");
  expect_dump("sasl-response(response=h'0102')", 0, "sasl-response(response=(2 bytes))");
  expect_dump("sasl-outcome(code=0 additional-data=h'0102')", 0, "sasl-outcome(code=0 additional-data=(2 bytes))");
  expect_dump("type=1 described(:amqp:sasl-response:list [h'7077'])", 0, "raw 41B");
  expect_dump("ch=0 described(:amqp:sasl-response:list [h'7077'])", 0, "raw 41B");
  expect_dump("type=1 described(0x43u64 [h'7077' 1u8])", 0, "raw 20B");
  expect_dump("type=1 h'7077'", 0, "raw 12B");
  expect_dump("raw h'0000000a020100005301'", 0, "raw 10B");
  expect_dump("ch=0 transfer(handle=0) payload=h'7077'", 0, "ch=0 transfer(handle=0) payload=2B");
  expect_dump("sasl-response(response=(3 bytes))", 1, "sasl-response(response=h'000000')");
}

static void test_pieces(void) {
  size_t used = 9, n = undump("ch=0 open(container-id=\"x\")");
  for (size_t part = 0; part < n; part++) {
    used = 9;
    CHECK(uam_dump(bytes, part, 1, NULL, 0, &used) == 0 && used == 0);
  }
  char text[8];
  CHECK(uam_dump(bytes, n, 1, text, sizeof text, &used) == 27 && used == n);
  bytes[n] = 0xff;
  CHECK(uam_dump(bytes, n + 1, 1, text, sizeof text, &used) == 27 && used == n);
}

static void test_errors(void) {
  expect_error("", "expected a value");
  expect_error("ch=0 nothing()", "unknown name");
  expect_error("ch=0 open(bad=1)", "unknown field");
  expect_error("ch=0 open(hostname=\"a\" container-id=\"b\")", "field out of order");
  expect_error("ch=0 open(hostname=\"a\" hostname=\"b\")", "field out of order");
  expect_error("ch=0 open(container-id=5)", "a number needs a suffix");
  expect_error("ch=0 open(channel-max=65536)", "number out of range");
  expect_error("ch=0 open(channel-max=-1)", "number out of range");
  expect_error("ch=0 [128i8]", "number out of range");
  expect_error("ch=0 [-129i8]", "number out of range");
  expect_error("ch=0 [18446744073709551616u64]", "number too large");
  expect_error("ch=65536 empty", "number too large");
  expect_error("ch=0 [1u8", "expected a value");
  expect_error("ch=0 \"abc", "\" has no end");
  expect_error("ch=0 \"\\q\"", "unknown escape");
  expect_error("ch=0 h'0", "expected two hexadecimal digits");
  expect_error("ch=0 h'00", "h' has no end");
  expect_error("ch=0 {1u8}", "expected = behind a map's key");
  expect_error("ch=0 @[1u8 2u16]", "array elements differ in type");
  expect_error("ch=0 @[accepted() released()]", "array elements differ in type");
  expect_error("ch=0 @[]", "an empty array names its type");
  expect_error("ch=0 @[1u8 *2]", "only elements without bytes repeat");
  expect_error("ch=0 @uint[1u32]", "an array with elements names no type");
  expect_error("ch=0 @foo[]", "unknown type name");
  expect_error("ch=0 decimal32(h'00')", "wrong number of bytes");
  expect_error("ch=0 empty empty", "unexpected text behind the frame");
  expect_error("ch=0 ext=h'00' empty", "ext is whole words");
  expect_error("AMQP 3.1.0.0", "this id belongs to another name");
  expect_error("AMQP 0.1.0", "expected four numbers");
  expect_error("payload=5B", "expected ( behind a name");
}

/* ---- random values, written in every legal width ---- */

static uint64_t seed = 1;
static uint32_t dice(uint32_t sides) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(seed >> 33) % sides;
}

static void random_value(uam_writer *w, unsigned depth) {
  static const uint8_t plain[] = {0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x50, 0x51, 0x52, 0x53,
                                  0x54, 0x55, 0x60, 0x61, 0x70, 0x71, 0x72, 0x74, 0x80, 0x81,
                                  0x82, 0x83, 0x84, 0x94, 0x98, 0xa0, 0xa1, 0xa3, 0xb0};
  static const uint8_t widths[] = {0, 1, 2, 4, 8, 16};
  uint32_t choice = dice(depth == 0 ? sizeof plain : sizeof plain + 8);
  if (choice >= sizeof plain) {
    uint8_t head[9] = {choice % 2 == 0 ? 0xd0 : 0xd1};
    size_t start = w->len;
    uint32_t count = dice(4) * 2;
    uam_write_raw(w, head, 9);
    for (uint32_t i = 0; i < count; i++) random_value(w, depth - 1);
    store_be32(w->p + start + 1, (uint32_t)(w->len - start - 5));
    store_be32(w->p + start + 5, count);
    return;
  }
  uint8_t code = plain[choice];
  if (dice(8) == 0 && depth != 0) {
    uam_write_raw(w, "\0", 1);
    uam_write_ulong(w, dice(2) != 0 ? 0x10 + dice(0x6a) : dice(100000));
    random_value(w, depth - 1);
    return;
  }
  uam_write_raw(w, &code, 1);
  uint32_t n = code < 0xa0 ? widths[(code >> 4) - 4] : dice(4);
  uint8_t size[4] = {0, 0, 0, (uint8_t)n};
  if (code >= 0xa0) uam_write_raw(w, size + (code >= 0xb0 ? 0 : 3), code >= 0xb0 ? 4 : 1);
  for (uint32_t i = 0; i < n; i++) {
    uint8_t byte = (uint8_t)(dice(3) != 0 ? 'a' + dice(26) : dice(256));
    uam_write_raw(w, &byte, 1);
  }
}

/* Any value: its text read back is a value with the same text, and reading that again gives the same bytes. */
static void test_random(void) {
  static uint8_t frame[1 << 14], first[1 << 14];
  static char text[1 << 16];
  for (int i = 0; i < 20000; i++) {
    uam_writer w = {frame, 8, sizeof frame};
    memset(frame, 0, 8);
    random_value(&w, 4);
    store_be32(frame, (uint32_t)w.len);
    frame[4] = 2;
    size_t used;
    int64_t n = uam_dump(frame, w.len, 1, text, sizeof text - 1, &used);
    text[n] = '\0';
    int64_t m = uam_undump(text, (size_t)n, first, sizeof first);
    if (m < 0) {
      FAIL("%s: %s", text, (const char *)first);
      continue;
    }
    const char *again = dump(first, (size_t)m, 1, &used);
    if (strcmp(text, again) != 0) FAIL("%s came back as %s", text, again);
    if (undump(again) != (size_t)m || memcmp(bytes, first, (size_t)m) != 0) FAIL("bytes of %s", text);
    CHECK((size_t)m <= w.len);
  }
}

/* One descriptor stands for all elements of an array, and each of them shows it: text without end from a small frame. */
static void test_long_lines(void) {
  enum { ELEMENTS = 20000, DESCRIPTOR = 20000 };
  static uint8_t frame[64 << 10];
  static char text[256 << 10];
  uam_writer w = {frame, 8, sizeof frame};
  static const uint8_t nothing[DESCRIPTOR] = {0};
  uint8_t head[] = {0xf0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00};
  memset(frame, 0, 8);
  uam_write_raw(&w, head, sizeof head);
  uam_write_binary(&w, (uam_span){nothing, DESCRIPTOR});
  uam_write_raw(&w, "\x50", 1);
  uam_write_raw(&w, nothing, ELEMENTS);
  frame[4] = 2;
  int64_t n = 0;
  for (uint32_t count = 100; count <= ELEMENTS; count += ELEMENTS - 100) { /* a hundred of them are text, all are not */
    size_t size = w.len - (ELEMENTS - count), used;
    store_be32(frame, (uint32_t)size);
    store_be32(frame + 9, (uint32_t)size - 13);
    store_be32(frame + 13, count);
    n = uam_dump(frame, w.len, 0, text, sizeof text - 1, &used);
    CHECK(used == size && (count == 100 ? n > 100 * 2 * DESCRIPTOR : n > 0 && n < 20));
  }
  text[n > 0 && n < 20 ? n : 0] = '\0';
  CHECK(strncmp(text, "raw ", 4) == 0 && strtoul(text + 4, NULL, 10) == w.len);
}

int main(void) {
  test_bytes();
  test_long_lines();
  test_arrays();
  test_lines();
  test_secrets();
  test_pieces();
  test_errors();
  test_random();
  return done("trace");
}
