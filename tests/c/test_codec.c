/* test_codec.c - buffer, reader, writer and composites against bytes written out by hand. */
#include "check.h"
#include "uam_codec.h"

static const uint8_t *hex(const char *text, size_t *n) {
  static uint8_t bytes[4][1024];
  static unsigned turn;
  uint8_t *out = bytes[turn++ % 4];
  size_t len = 0;
  for (; text[0] != '\0' && text[1] != '\0'; text += 2) {
    char digits[3] = {text[0], text[1], '\0'};
    out[len++] = (uint8_t)strtoul(digits, NULL, 16);
  }
  *n = len;
  return out;
}

static uam_span bytes_of(const char *text) {
  size_t n;
  const uint8_t *p = hex(text, &n);
  return (uam_span){p, n};
}

static uam_reader reader_of(const char *text) {
  uam_span s = bytes_of(text);
  return uam_reader_of(s.ptr, s.len);
}

/* ---- buffer ---- */

static void test_buffer(void) {
  uam_buf b = {0};
  uint8_t block[100];
  for (size_t i = 0; i < sizeof block; i++) block[i] = (uint8_t)i;
  size_t put = 0, taken = 0;
  for (int round = 0; round < 1000; round++) {
    CHECK(uam_buf_put(&b, &uam_mem_default, block, sizeof block));
    put += sizeof block;
    size_t n = (size_t)(round * 37 % 150);
    if (n > uam_buf_len(&b)) n = uam_buf_len(&b);
    for (size_t i = 0; i < n; i++) {
      if (b.data[b.head + i] != (taken + i) % 100) FAIL("byte %zu of round %d", i, round);
    }
    uam_buf_consume(&b, n);
    taken += n;
    CHECK(uam_buf_len(&b) == put - taken);
  }
  CHECK(b.cap < 4 * (put - taken) + 4096);
  uam_buf_consume(&b, uam_buf_len(&b));
  CHECK(b.head == 0 && b.tail == 0 && b.cap != 0);
  uam_buf_free(&b, &uam_mem_default);
  CHECK(b.data == NULL && b.cap == 0);
  CHECK(uam_buf_put(&b, &uam_mem_default, NULL, 0) && b.data == NULL);
}

static int allowed;
static void *scarce(void *ctx, void *p, size_t n) {
  (void)ctx;
  if (n != 0 && allowed-- <= 0) return NULL;
  return uam_mem_default.realloc(NULL, p, n);
}

static void test_no_memory(void) {
  uam_mem mem = {scarce, NULL};
  uam_buf b = {0};
  allowed = 1;
  CHECK(uam_buf_put(&b, &mem, "abc", 3));
  CHECK(!uam_buf_reserve(&b, &mem, 5000));
  CHECK(uam_buf_len(&b) == 3 && memcmp(b.data, "abc", 3) == 0);
  CHECK(!uam_buf_reserve(&b, &mem, SIZE_MAX / 2));
  CHECK(uam_mem_alloc(&mem, 10) == NULL);
  uam_buf_free(&b, &mem);
  allowed = 1;
  uint8_t *p = uam_mem_alloc(&mem, 10);
  CHECK(p != NULL && p[0] == 0 && p[9] == 0);
  uam_mem_free(&mem, p);
  uam_mem_free(&mem, NULL);
}

/* ---- reader ---- */

static void test_sticky(void) {
  uam_reader r = reader_of("5205a0");
  CHECK(uam_read_uint(&r) == 5);
  CHECK(uam_read_binary(&r).len == 0 && r.err == UAM_ERR_DECODE);
  const char *why = r.why;
  CHECK(uam_read_uint(&r) == 0 && uam_read_value(&r).len == 0 && !uam_read_null(&r));
  uam_read_fail(&r, "another");
  CHECK(r.why == why && strcmp(why, "ends too early") == 0);
}

static void test_scalars(void) {
  uam_reader r = reader_of("4142560156005007600102"
                           "4352ff7000000100"
                           "4453ff800000000000000100"
                           "830000018bcfe56800");
  CHECK(uam_read_bool(&r) && !uam_read_bool(&r) && uam_read_bool(&r) && !uam_read_bool(&r));
  CHECK(uam_read_ubyte(&r) == 7 && uam_read_ushort(&r) == 0x102);
  CHECK(uam_read_uint(&r) == 0 && uam_read_uint(&r) == 255 && uam_read_uint(&r) == 256);
  CHECK(uam_read_ulong(&r) == 0 && uam_read_ulong(&r) == 255 && uam_read_ulong(&r) == 256);
  CHECK(uam_read_timestamp(&r) == 1700000000000u && r.err == 0 && r.p == r.end);
  r = reader_of("a003010203b00000000101a1026162b10000000163a30178b300000000");
  CHECK(uam_read_binary(&r).len == 3 && uam_read_binary(&r).len == 1);
  CHECK(uam_read_string(&r).len == 2 && uam_read_string(&r).ptr[0] == 'c');
  CHECK(uam_read_symbol(&r).ptr[0] == 'x' && uam_read_symbol(&r).len == 0 && r.err == 0 && r.p == r.end);
  r = reader_of("405205");
  CHECK(uam_read_null(&r) && !uam_read_null(&r) && uam_read_uint(&r) == 5);
}

static void test_wrong_types(void) {
  static const char *const values[] = {"40", "a10161", "c00101", "00", "", "5602", "3f", "72000000"};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    uam_reader r = reader_of(values[i]);
    (void)uam_read_bool(&r);
    CHECK(r.err == UAM_ERR_DECODE && r.why != NULL && r.p == r.end);
    r = reader_of(values[i]);
    CHECK(uam_read_uint(&r) == 0 && r.err == UAM_ERR_DECODE);
    r = reader_of(values[i]);
    CHECK(uam_read_symbol(&r).ptr == NULL && r.err == UAM_ERR_DECODE);
  }
}

static void test_lists(void) {
  static const char *const lists[] = {"c0040252055206"
                                      "43",
                                      "c0050252055206"
                                      "43",
                                      "d0000000080000000252055206"
                                      "43"};
  for (size_t i = 0; i < 3; i++) {
    uint32_t count;
    uam_reader r = reader_of(lists[i]);
    uam_reader in = uam_read_list(&r, &count);
    if (i == 0) { /* one byte short: the last item is cut */
      CHECK(count == 2 && uam_read_uint(&in) == 5 && uam_read_uint(&in) == 0 && in.err == UAM_ERR_DECODE && r.err == 0);
      continue;
    }
    CHECK(count == 2 && uam_read_uint(&in) == 5 && uam_read_uint(&in) == 6 && in.err == 0 && in.p == in.end);
    CHECK(uam_read_uint(&r) == 0 && r.err == 0 && r.p == r.end);
  }
  uint32_t count = 9;
  uam_reader r = reader_of("45");
  uam_reader in = uam_read_list(&r, &count);
  CHECK(count == 0 && in.p == in.end && r.err == 0);
  r = reader_of("c00100");
  in = uam_read_list(&r, &count);
  CHECK(count == 0 && in.p == in.end && r.err == 0);
  r = reader_of("c00305"
                "4040");
  (void)uam_read_list(&r, &count);
  CHECK(r.err == UAM_ERR_DECODE && count == 0);
}

static void test_outline(void) {
  uam_reader r = reader_of("c003013f3f"
                           "d00000000400000000"
                           "00532445a10161");
  CHECK(uam_read_outline(&r).len == 5 && uam_read_outline(&r).len == 9 && uam_read_outline(&r).len == 4);
  CHECK(uam_read_outline(&r).len == 3 && r.err == 0 && r.p == r.end);
  CHECK(uam_read_outline(&r).len == 0 && r.err == UAM_ERR_DECODE);
  r = reader_of("c00401");
  CHECK(uam_read_outline(&r).len == 0 && r.err == UAM_ERR_DECODE);
  r = reader_of("3f00");
  CHECK(uam_read_outline(&r).len == 0 && r.err == UAM_ERR_DECODE);
}

static uint64_t descriptor(const char *text, int *err) {
  uam_reader r = reader_of(text);
  uint64_t code = uam_read_descriptor(&r);
  *err = r.err;
  return code;
}

static void test_descriptors(void) {
  int err;
  CHECK(descriptor("005310", &err) == 0x10 && err == 0);
  CHECK(descriptor("00800000000000000024", &err) == 0x24 && err == 0);
  CHECK(descriptor("0044", &err) == 0 && err == 0);
  CHECK(descriptor("00800000000100000010", &err) == 0 && err == 0);
  CHECK(descriptor("00a30e"
                   "616d71703a6f70656e3a6c697374",
                   &err) == 0x10 &&
        err == 0);
  CHECK(descriptor("00a314"
                   "616d71703a7361736c2d696e69743a6c69737421",
                   &err) == 0 &&
        err == 0);
  CHECK(descriptor("00a313"
                   "616d71703a7361736c2d696e69743a6c697374",
                   &err) == 0x41 &&
        err == 0);
  CHECK(descriptor("00b300000010"
                   "616d71703a646174613a62696e617279",
                   &err) == 0x75 &&
        err == 0);
  CHECK(descriptor("00a10161", &err) == 0 && err == 0);
  CHECK(descriptor("00", &err) == 0 && err == UAM_ERR_DECODE);
  CHECK(descriptor("0053", &err) == 0 && err == UAM_ERR_DECODE);
  CHECK(descriptor("45", &err) == 0 && err == UAM_ERR_DECODE);
}

/* Depth and count bounds: one within, one beyond. */
static int read_nested(unsigned depth) {
  uint8_t b[256];
  size_t n = 0;
  for (unsigned i = 0; i < depth; i++) {
    b[n++] = 0x00;
    b[n++] = 0x53;
    b[n++] = 0x77;
  }
  b[n++] = 0x40;
  uam_reader r = uam_reader_of(b, n);
  (void)uam_read_value(&r);
  return r.err;
}

static int read_empties(uint32_t each, unsigned arrays) {
  uint8_t b[256] = {0xd0};
  uam_writer w = {b, 9, sizeof b};
  for (unsigned i = 0; i < arrays; i++) {
    uint8_t a[10] = {0xf0, 0, 0, 0, 5, 0, 0, 0, 0, 0x40};
    store_be32(a + 5, each);
    uam_write_raw(&w, a, sizeof a);
  }
  store_be32(b + 1, (uint32_t)w.len - 5);
  store_be32(b + 5, arrays);
  uam_reader r = uam_reader_of(b, w.len);
  (void)uam_read_value(&r);
  return r.err;
}

static void test_bounds(void) {
  CHECK(read_nested(UAM_MAX_DEPTH) == 0);
  CHECK(read_nested(UAM_MAX_DEPTH + 1) == UAM_ERR_DECODE);
  CHECK(read_empties(UAM_MAX_ITEMS, 1) == 0);
  CHECK(read_empties(UAM_MAX_ITEMS + 1, 1) == UAM_ERR_DECODE);
  CHECK(read_empties(UAM_MAX_ITEMS / 2, 2) == 0);
  CHECK(read_empties(UAM_MAX_ITEMS / 2 + 1, 2) == UAM_ERR_DECODE);
  CHECK(read_empties(UINT32_MAX, 1) == UAM_ERR_DECODE);
}

/* ---- writer ---- */

static bool wrote(const uam_writer *w, const char *text) {
  uam_span want = bytes_of(text);
  return w->len == want.len && memcmp(w->p, want.ptr, want.len) == 0;
}

static void test_writer(void) {
  uint8_t b[1024], long_text[300] = {0};
  uam_writer w = {b, 0, sizeof b};
  uam_write_null(&w);
  uam_write_bool(&w, true);
  uam_write_bool(&w, false);
  uam_write_ubyte(&w, 200);
  uam_write_ushort(&w, 513);
  uam_write_uint(&w, 0);
  uam_write_uint(&w, 255);
  uam_write_uint(&w, 256);
  uam_write_ulong(&w, 0);
  uam_write_ulong(&w, 255);
  uam_write_ulong(&w, 256);
  uam_write_timestamp(&w, (uint64_t)-1);
  uam_write_binary(&w, (uam_span){(const uint8_t *)"ab", 2});
  uam_write_string(&w, (uam_span){(const uint8_t *)"c", 1});
  uam_write_symbol(&w, (uam_span){NULL, 0});
  CHECK(wrote(&w, "40414250c86002014352ff70000001004453ff80000000000000010083ffffffffffffffffa0026162a10163a300"));
  w = (uam_writer){b, 0, sizeof b};
  uam_write_string(&w, (uam_span){long_text, 255});
  CHECK(w.len == 257 && b[0] == 0xa1);
  w = (uam_writer){b, 0, sizeof b};
  uam_write_string(&w, (uam_span){long_text, 256});
  CHECK(w.len == 261 && b[0] == 0xb1 && load_be32(b + 1) == 256);
  for (size_t cap = 0; cap < 261; cap++) {
    uint8_t *exact = malloc(cap + 1); /* the sanitizer watches its end */
    w = (uam_writer){exact, 0, cap};
    uam_write_string(&w, (uam_span){long_text, 256});
    if (w.len != 261) FAIL("counted %zu at cap %zu", w.len, cap);
    free(exact);
  }
  CHECK(w.cap == 260);
}

/* ---- composites ---- */

static void test_perf_names(void) {
  CHECK(strcmp(uam_composite_name(0x10), "open") == 0 && strcmp(uam_composite_name(0x44), "sasl_outcome") == 0);
  CHECK(uam_composite_name(0) == NULL && uam_composite_name(0x19) == NULL && uam_composite_name(UINT32_MAX) == NULL);
  CHECK(strcmp(uam_field_name(0x10, 9), "properties") == 0 && uam_field_name(0x10, 10) == NULL);
  CHECK(uam_field_name(0x24, 0) == NULL && uam_composite_field_count(0x12) == 14 &&
        uam_composite_field_count(0x99) == 0);
  CHECK(strcmp(uam_field_name(0x73, 12), "reply_to_group_id") == 0 && strcmp(uam_field_name(0x28, 7), "filter") == 0);
  CHECK(uam_field_kind(0x12, 4) == UAM_KIND_UBYTE && uam_field_kind(0x12, 5) == UAM_KIND_ILLEGAL);
}

static void test_perf_decode(void) {
  uam_fault fault = {0};
  uam_p_transfer t;
  CHECK(uam_composite_decode(0x14, bytes_of("c00d055207700000ffffa001014041"), &t, &fault) == 0);
  CHECK(t.set == (UAM_SET(transfer, handle) | UAM_SET(transfer, delivery_id) | UAM_SET(transfer, delivery_tag) |
                  UAM_SET(transfer, settled)));
  CHECK(t.handle == 7 && t.delivery_id == 0xffff && t.delivery_tag.len == 1 && t.settled && !t.more);
  uam_p_disposition d;
  CHECK(uam_composite_decode(0x15, bytes_of("c00a05414344404100532445"), &d, &fault) != 0);
  CHECK(uam_composite_decode(0x15, bytes_of("c009054143404100532445"), &d, &fault) == 0);
  CHECK(d.role && d.first == 0 && !UAM_HAS(d, disposition, last) && d.settled && d.state.len == 4);
  uam_any any;
  CHECK(uam_composite_decode(0x24, bytes_of("45"), &any, &fault) == 0 && any.accepted.set == 0);
  CHECK(uam_composite_decode(0x13, bytes_of("d00000000a0000000540520552064352ff"), &any, &fault) != 0);
  CHECK(uam_composite_decode(0x13, bytes_of("d00000000c000000054052055206435201"), &any, &fault) == 0);
  CHECK(!UAM_HAS(any.flow, flow, next_incoming_id) && any.flow.incoming_window == 5 && any.flow.handle == 1);
}

static void expect_fault(uint32_t code, const char *list, const char *condition, const char *text) {
  uam_fault fault = {0};
  uam_any any;
  CHECK(uam_composite_decode(code, bytes_of(list), &any, &fault) == UAM_ERR_DECODE);
  CHECK(fault.condition != NULL && strcmp(fault.condition, condition) == 0);
  if (strcmp(fault.text, text) != 0) FAIL("%s instead of %s", fault.text, text);
}

static void test_perf_faults(void) {
  expect_fault(0x10, "45", "amqp:invalid-field", "open.container-id is missing");
  expect_fault(0x10, "c0020140", "amqp:invalid-field", "open.container-id is missing");
  expect_fault(0x10, "c003015201", "amqp:decode-error", "open.container-id is not a string");
  expect_fault(0x10,
               "c007"
               "03a100405001",
               "amqp:decode-error", "open ends too early");
  expect_fault(0x10,
               "c006"
               "03a100405001",
               "amqp:decode-error", "open.max-frame-size is not a uint");
  expect_fault(0x15, "c0060341435201", "amqp:decode-error", "disposition ends too early");
  expect_fault(0x15, "c0040341435201", "amqp:decode-error", "disposition is followed by stray bytes");
  expect_fault(0x15,
               "c00502414352"
               "01",
               "amqp:decode-error", "disposition has a size larger than its fields");
  expect_fault(0x16,
               "c00504"
               "43404040",
               "amqp:decode-error", "detach has 4 fields, at most 3");
  expect_fault(0x16,
               "c0040343"
               "40ff",
               "amqp:decode-error", "detach.error has an unknown format code");
  expect_fault(0x16, "a00101", "amqp:decode-error", "detach is not a list");
  expect_fault(0x16, "", "amqp:decode-error", "composite 0x16 ends too early");
  expect_fault(0x99, "45", "amqp:decode-error", "composite 0x99 is unknown");
  expect_fault(0x41, "45", "amqp:invalid-field", "sasl-init.mechanism is missing");
}

static void test_perf_encode(void) {
  uint8_t b[2048], blob[300] = {0xb0, 0, 0, 1, 0x27};
  uam_writer w = {b, 0, sizeof b};
  uam_composite_encode(&w, UAM_COMPOSITE_accepted, &(uam_p_accepted){0});
  CHECK(wrote(&w, "00532445"));
  w.len = 0;
  uam_p_transfer t = {.set = UAM_SET(transfer, handle) | UAM_SET(transfer, delivery_tag) | UAM_SET(transfer, more),
                      .handle = 3,
                      .delivery_tag = {(const uint8_t *)"\1\2", 2},
                      .more = true};
  uam_composite_encode(&w, UAM_COMPOSITE_transfer, &t);
  CHECK(wrote(&w, "005314c00b06520340a0020102404041"));
  w.len = 0;
  uam_p_open o = {.set = UAM_SET(open, container_id) | UAM_SET(open, properties),
                  .container_id = {blob, 1},
                  .properties = {blob, sizeof blob}};
  uam_composite_encode(&w, UAM_COMPOSITE_open, &o);
  CHECK(w.len == 12 + 3 + 8 + 300 && b[3] == 0xd0 && load_be32(b + 4) == w.len - 8 && load_be32(b + 8) == 10);
  uam_p_open back;
  uam_fault fault = {0};
  CHECK(uam_composite_decode(0x10, (uam_span){b + 3, w.len - 3}, &back, &fault) == 0);
  CHECK(back.set == o.set && back.properties.len == 300 && memcmp(back.properties.ptr, blob, 300) == 0);
  size_t full = w.len;
  for (size_t cap = 0; cap < full; cap++) {
    uint8_t *exact = malloc(cap + 1);
    w = (uam_writer){exact, 0, cap};
    uam_composite_encode(&w, UAM_COMPOSITE_open, &o);
    if (w.len != full) FAIL("counted %zu at cap %zu", w.len, cap);
    free(exact);
  }
  w = (uam_writer){b, 0, sizeof b};
  uam_composite_encode(&w, 0x99, &o);
  CHECK(w.len == 0);
}

int main(void) {
  test_buffer();
  test_no_memory();
  test_sticky();
  test_scalars();
  test_wrong_types();
  test_lists();
  test_outline();
  test_descriptors();
  test_bounds();
  test_writer();
  test_perf_names();
  test_perf_decode();
  test_perf_faults();
  test_perf_encode();
  return done("codec");
}
