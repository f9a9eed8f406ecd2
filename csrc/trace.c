/* trace.c - frames as text and back: the notation of traces, of `decode` and of the transcripts. No engine needed.
 *
 * One line is one frame or protocol header.
 *
 *   AMQP 0.1.0.0                     protocol header: id, major, minor, revision; id 3 is called SASL, id 2 TLS,
 *                                    every other AMQP
 *   ch=0 empty                       a frame without body (heartbeat)
 *   ch=0 open(container-id="x" max-frame-size=65536 properties={:a="b"})
 *   ch=1 transfer(handle=0 delivery-id=0 delivery-tag=h'01000000' settled=false) payload=h'00537540'
 *   sasl-init(mechanism=:PLAIN initial-response=h'0061006200')
 *   raw h'0000000502000000'          these bytes as they are: whatever is not a well-formed frame
 *
 * A frame is [type=N] [ch=N] [ext=h'..'] BODY [PAYLOAD]. Left out: type is 1 for a body sasl-..., else 0; ch is 0; ext
 * (extended header) is empty. ch is always printed for type 0. BODY is `empty` or one value. Blanks and commas separate,
 * in any number; dumping writes single blanks.
 *
 *   payload=h'..'                    the bytes behind the performative
 *   payload=120B                     the same without secrets; read back as 120 zero bytes
 *   payload=(VALUE VALUE ...)        read only: encoded values, such as (properties(to="a") data(h'6869'))
 *   raw 37B                          raw without secrets; read back as zero bytes. A frame whose values take more text than
 *                                    UAM_MAX_LINE is shown as raw, too
 *
 * Composites of performatives.def are name(field=VALUE ...), with the specification's names; what is left out is
 * null, trailing nulls are not encoded. Fields stand in the specification's order. Required ones may be left out and types may
 * be wrong: no check is made. The other message sections are name(VALUE): delivery-annotations, message-annotations, application-properties, data,
 * amqp-sequence, amqp-value, footer.
 *
 * Values:
 *   null true false
 *   5u8 5u16 5u32 5u64               ubyte ushort uint ulong; decimal or 0x hexadecimal
 *   -5i8 -5i16 -5i32 -5i64           byte short int long
 *   5                                in a composite's field whose type is ubyte..ulong: that type (anywhere else the
 *                                    suffix is needed); dumping leaves the suffix out just there
 *   float(0x3fc00000) double(0x3ff8000000000000)       the bits
 *   decimal32(h'..') decimal64(h'..') decimal128(h'..') the bytes
 *   char(0x263a) timestamp(-1) uuid(00112233-4455-6677-8899-aabbccddeeff)
 *   "text"                           string; \" \\ \n \r \t \xNN (a byte). Non-ASCII is dumped as \xNN
 *   :amqp:not-found :"with space"    symbol; unquoted it may hold letters, digits and - _ . : / + * $ @ # %
 *   h'00ff'                          binary; blanks between digits may be read
 *   (5 bytes)                        binary without secrets (SASL responses and challenges); read back as zero bytes
 *   [VALUE VALUE]                    list
 *   {VALUE=VALUE VALUE=VALUE}        map, in the order of the wire
 *   @[VALUE VALUE]                   array: elements of one type (or all described by the same descriptors)
 *   @[VALUE *5]                      array of 5 equal elements that have no bytes, only a constructor: null true false 0 []
 *   @symbol[]                        an empty array names its element type: null boolean ubyte ushort uint byte short int
 *                                    char float ulong long timestamp double uuid decimal32 decimal64 decimal128 binary
 *                                    string symbol list map array described(VALUE TYPE)
 *   described(VALUE VALUE)           descriptor, value; for descriptors that have no name
 *   enc(h'5205')                     read only: encoded bytes put in place as they are (other widths, malformed ones)
 *
 * Reading gives the smallest encodings. So dump(undump(t)) gives t for every t that dump can give, and undump(dump(b)) is b
 * for every frame b that uses the smallest encodings, no trailing nulls and ulong descriptors. Array elements take the
 * narrowest constructor that fits them all and has bytes (0x52 0x53 0x54 0x55 0x56 0xa0 0xc0 ...). undump.c reads. */
#include "uam_codec.h"
#include <inttypes.h>
#include <stdio.h>

bool uam_is_symbol_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         (c != '\0' && strchr("-_.:/+*$@#%", c) != NULL);
}

const char *uam_section_name(uint32_t code) {
  static const char *const names[] = {[1] = "delivery-annotations",
                                      [2] = "message-annotations",
                                      [4] = "application-properties",
                                      [5] = "data",
                                      [6] = "amqp-sequence",
                                      [7] = "amqp-value",
                                      [8] = "footer"};
  return code >= 0x70 && code <= 0x78 ? names[code - 0x70] : NULL;
}

/* Counts on past the end of the room, like the writer of codec.c. */
typedef struct text {
  char *p;
  size_t len, cap;
  bool secrets;
} text;

static void put(text *t, const char *s, size_t n) {
  if (t->len <= t->cap && t->cap - t->len >= n && n != 0) memcpy(t->p + t->len, s, n);
  t->len += n;
}

static void put_char(text *t, char c) { put(t, &c, 1); }
static void put_text(text *t, const char *s) { put(t, s, strlen(s)); }

static void put_number(text *t, const char *format, uint64_t v) {
  char digits[64];
  int n = snprintf(digits, sizeof digits, format, v);
  put(t, digits, (size_t)n);
}

static void put_hex(text *t, const uint8_t *p, size_t n) {
  static const char digits[] = "0123456789abcdef";
  put_text(t, "h'");
  for (size_t i = 0; i < n; i++) {
    put_char(t, digits[p[i] >> 4]);
    put_char(t, digits[p[i] & 15]);
  }
  put_char(t, '\'');
}

/* The specification's spelling of a name of the table. */
static void put_name(text *t, const char *name) {
  for (; *name != '\0'; name++) put_char(t, *name == '_' ? '-' : *name);
}

static void put_quoted(text *t, uam_span s) {
  put_char(t, '"');
  for (size_t i = 0; i < s.len; i++) {
    uint8_t c = s.ptr[i];
    if (c == '"' || c == '\\') {
      put_char(t, '\\');
      put_char(t, (char)c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      put_text(t, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
    } else if (c < 0x20 || c >= 0x7f) {
      put_number(t, "\\x%02" PRIx64, c);
    } else {
      put_char(t, (char)c);
    }
  }
  put_char(t, '"');
}

static void put_symbol(text *t, uam_span s) {
  bool plain = s.len != 0;
  for (size_t i = 0; i < s.len; i++) plain = plain && uam_is_symbol_char((char)s.ptr[i]);
  put_char(t, ':');
  if (plain) put(t, (const char *)s.ptr, s.len);
  else put_quoted(t, s);
}

static void put_uuid(text *t, const uint8_t *p) {
  for (size_t i = 0; i < 16; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) put_char(t, '-');
    put_number(t, "%02" PRIx64, p[i]);
  }
}

/* `secret`: content of a SASL frame, shown only if secrets are. `expected`: the field's type, whose suffix is understood. */
typedef struct context {
  uint8_t expected;
  bool secret;
} context;

static const context anywhere = {UAM_KIND_ILLEGAL, false};

static void put_scalar(text *t, const uam_item *item, uint8_t expected) {
  static const char *const suffixes[] = {[UAM_KIND_UBYTE] = "u8",  [UAM_KIND_USHORT] = "u16", [UAM_KIND_UINT] = "u32",
                                         [UAM_KIND_BYTE] = "i8",   [UAM_KIND_SHORT] = "i16",  [UAM_KIND_INT] = "i32",
                                         [UAM_KIND_ULONG] = "u64", [UAM_KIND_LONG] = "i64"};
  uint64_t v = item->kind == UAM_KIND_NULL || item->kind >= UAM_KIND_UUID ? 0 : uam_item_bits(item);
  switch (item->kind) {
    case UAM_KIND_NULL: put_text(t, "null"); break;
    case UAM_KIND_BOOL: put_text(t, v != 0 ? "true" : "false"); break;
    case UAM_KIND_CHAR: put_number(t, "char(0x%" PRIx64 ")", v); break;
    case UAM_KIND_FLOAT: put_number(t, "float(0x%08" PRIx64 ")", v); break;
    case UAM_KIND_DOUBLE: put_number(t, "double(0x%016" PRIx64 ")", v); break;
    case UAM_KIND_BYTE:
    case UAM_KIND_SHORT:
    case UAM_KIND_INT:
    case UAM_KIND_LONG:
    case UAM_KIND_TIMESTAMP:
      if (item->kind == UAM_KIND_TIMESTAMP) put_text(t, "timestamp(");
      if (v >> 63 != 0) put_char(t, '-');
      put_number(t, "%" PRIu64, v >> 63 != 0 ? 0 - v : v);
      put_text(t, item->kind == UAM_KIND_TIMESTAMP ? ")" : suffixes[item->kind]);
      break;
    default:
      put_number(t, "%" PRIu64, v);
      if (item->kind != expected) put_text(t, suffixes[item->kind]);
      break;
  }
}

static void put_bytes(text *t, const uam_item *item) {
  static const char *const decimals[] = {"decimal32(", "decimal64(", "decimal128("};
  switch (item->kind) {
    case UAM_KIND_BINARY: put_hex(t, item->data.ptr, item->data.len); break;
    case UAM_KIND_STRING: put_quoted(t, item->data); break;
    case UAM_KIND_SYMBOL: put_symbol(t, item->data); break;
    case UAM_KIND_UUID:
      put_text(t, "uuid(");
      put_uuid(t, item->data.ptr);
      put_char(t, ')');
      break;
    default:
      put_text(t, decimals[item->kind - UAM_KIND_DECIMAL32]);
      put_hex(t, item->data.ptr, item->data.len);
      put_char(t, ')');
      break;
  }
}

static void put_value(text *t, uam_reader *constructor, uam_reader *data, context c);

/* Numbers of descriptors are usually written in hexadecimal. */
static void put_descriptor(text *t, uam_span descriptor) {
  uam_reader r = uam_reader_of(descriptor.ptr, descriptor.len);
  if (uam_kind_of(descriptor.ptr[0]) == UAM_KIND_ULONG) put_number(t, "0x%" PRIx64 "u64", uam_read_ulong(&r));
  else put_value(t, &r, &r, anywhere);
}

static void put_type(text *t, uam_reader *constructor) {
  if (constructor->p == constructor->end) {
    put_text(t, uam_kind_names[UAM_KIND_NULL]);
    return;
  }
  uint8_t code = uam_read_code(constructor);
  if (code != 0) {
    put_text(t, uam_kind_names[uam_kind_of(code)]);
    return;
  }
  put_text(t, "described(");
  put_descriptor(t, uam_read_value(constructor));
  put_char(t, ' ');
  put_type(t, constructor);
  put_char(t, ')');
}

/* All elements share one constructor, so each is put with a reader of its own over that. */
static void put_array(text *t, const uam_item *array) {
  uam_reader constructor = uam_reader_of(array->data.ptr, array->data.len), data = constructor;
  put_char(t, '@');
  if (array->count == 0) {
    put_type(t, &constructor);
    put_text(t, "[]");
    return;
  }
  uint8_t code = uam_read_code(&data);
  for (; code == 0; code = uam_read_code(&data)) (void)uam_read_value(&data);
  put_char(t, '[');
  bool empty = code >> 4 == 4; /* no bytes per element: they are all the same */
  for (uint32_t i = 0; i < (empty ? 1 : array->count) && t->len <= UAM_MAX_LINE; i++) {
    uam_reader again = constructor;
    if (i != 0) put_char(t, ' ');
    put_value(t, &again, &data, anywhere);
  }
  if (empty) put_number(t, " *%" PRIu64, array->count);
  put_char(t, ']');
}

static void put_items(text *t, const uam_item *item) {
  uam_reader r = uam_reader_of(item->data.ptr, item->data.len);
  bool map = item->kind == UAM_KIND_MAP;
  put_char(t, map ? '{' : '[');
  for (uint32_t i = 0; i < item->count && t->len <= UAM_MAX_LINE; i++) {
    if (i != 0) put_char(t, map && i % 2 != 0 ? '=' : ' ');
    put_value(t, &r, &r, anywhere);
  }
  put_char(t, map ? '}' : ']');
}

static bool is_secret(uint32_t code, uint32_t field) {
  return code == UAM_COMPOSITE_sasl_challenge || code == UAM_COMPOSITE_sasl_response ||
         (code == UAM_COMPOSITE_sasl_init && field == UAM_INDEX_sasl_init_initial_response) ||
         (code == UAM_COMPOSITE_sasl_outcome && field == UAM_INDEX_sasl_outcome_additional_data);
}

static void put_composite(text *t, uint32_t code, const uam_item *list) {
  uam_reader r = uam_reader_of(list->data.ptr, list->data.len);
  bool first = true;
  put_name(t, uam_composite_name(code));
  put_char(t, '(');
  for (uint32_t i = 0; i < list->count; i++) {
    if (uam_read_null(&r)) continue;
    if (!first) put_char(t, ' ');
    first = false;
    put_name(t, uam_field_name(code, i));
    put_char(t, '=');
    put_value(t, &r, &r, (context){uam_field_kind(code, i), is_secret(code, i)});
  }
  put_char(t, ')');
}

/* The code when `descriptor` is a ulong that the specification names for values of format `code`; else 0. */
static uint32_t named(uam_span descriptor, uint8_t code, const uam_reader *data) {
  uam_reader r = uam_reader_of(descriptor.ptr, descriptor.len);
  if (uam_kind_of(descriptor.ptr[0]) != UAM_KIND_ULONG) return 0;
  uint64_t number = uam_read_ulong(&r);
  if (number > UINT32_MAX) return 0;
  if (uam_section_name((uint32_t)number) != NULL) return (uint32_t)number;
  uam_reader peek = *data;
  if (uam_composite_name((uint32_t)number) == NULL || uam_kind_of(code) != UAM_KIND_LIST) return 0;
  return uam_read_item(&peek, code).count <= uam_composite_field_count((uint32_t)number) ? (uint32_t)number : 0;
}

static void put_described(text *t, uam_reader *constructor, uam_reader *data) {
  uam_span descriptor = uam_read_value(constructor);
  uint32_t code =
      named(descriptor, *constructor->p, constructor == data ? &(uam_reader){data->p + 1, data->end, 0, NULL} : data);
  if (code != 0 && uam_section_name(code) == NULL) {
    uint8_t format = uam_read_code(constructor);
    uam_item list = uam_read_item(data, format);
    put_composite(t, code, &list);
    return;
  }
  if (code != 0) {
    put_text(t, uam_section_name(code));
    put_char(t, '(');
  } else {
    put_text(t, "described(");
    put_descriptor(t, descriptor);
    put_char(t, ' ');
  }
  put_value(t, constructor, data, anywhere);
  put_char(t, ')');
}

/* One value that uam_read_value has checked. Its constructor and its data come from two readers: the same one, but for
 * elements of arrays. */
static void put_value(text *t, uam_reader *constructor, uam_reader *data, context c) {
  const uint8_t *start = constructor->p;
  if (c.secret && !t->secrets) {
    uam_span value = uam_read_value(constructor);
    uam_reader r = uam_reader_of(start, value.len);
    uint64_t n = uam_kind_of(*start) == UAM_KIND_BINARY ? uam_read_binary(&r).len : value.len;
    put_number(t, "(%" PRIu64 " bytes)", n);
    return;
  }
  uint8_t code = uam_read_code(constructor);
  if (code == 0) {
    put_described(t, constructor, data);
    return;
  }
  uam_item item = uam_read_item(data, code);
  if (item.kind < UAM_KIND_UUID) put_scalar(t, &item, c.expected);
  else if (item.kind <= UAM_KIND_SYMBOL) put_bytes(t, &item);
  else if (item.kind <= UAM_KIND_MAP) put_items(t, &item);
  else put_array(t, &item);
}

/* ---- frames ---- */

static void put_raw(text *t, const uint8_t *p, size_t n) {
  put_text(t, "raw ");
  if (t->secrets) put_hex(t, p, n);
  else put_number(t, "%" PRIu64 "B", n);
}

static void put_protocol_header(text *t, const uint8_t *p) {
  put_text(t, p[4] == 3 ? "SASL " : p[4] == 2 ? "TLS " : "AMQP ");
  for (size_t i = 4; i < 8; i++) put_number(t, i == 4 ? "%" PRIu64 : ".%" PRIu64, p[i]);
}

static bool is_sasl(uint64_t code) {
  return code >= UAM_COMPOSITE_sasl_mechanisms && code <= UAM_COMPOSITE_sasl_outcome;
}

/* The code of a body in composite notation, else 0. */
static uint32_t composite_of(uam_span body) {
  if (body.ptr[0] != 0) return 0;
  uam_reader r = uam_reader_of(body.ptr + 1, body.len - 1);
  uam_span descriptor = uam_read_value(&r);
  uint8_t code = uam_read_code(&r);
  return code != 0 ? named(descriptor, code, &r) : 0;
}

static void put_frame(text *t, const uint8_t *p, size_t size) {
  size_t body = (size_t)p[4] * 4;
  uint8_t type = p[5];
  uint16_t channel = load_be16(p + 6);
  uam_reader r = uam_reader_of(p + body, size - body), peek = r;
  uam_span value = body < size ? uam_read_value(&r) : (uam_span){0};
  uint32_t code = r.err == 0 && value.len != 0 ? composite_of(value) : 0;
  bool hidden = value.len != 0 && !t->secrets && !is_sasl(code) && (type == 1 || is_sasl(uam_read_descriptor(&peek)));
  if (r.err != 0 || hidden) {
    put_raw(t, p, size);
    return;
  }
  if (type != (is_sasl(code) ? 1 : 0)) put_number(t, "type=%" PRIu64 " ", type);
  if (type == 0 || channel != 0) put_number(t, "ch=%" PRIu64 " ", channel);
  if (body > 8) {
    put_text(t, "ext=");
    put_hex(t, p + 8, body - 8);
    put_char(t, ' ');
  }
  if (value.len == 0) {
    put_text(t, "empty");
    return;
  }
  uam_reader checked = uam_reader_of(value.ptr, value.len);
  put_value(t, &checked, &checked, anywhere);
  if (t->len > UAM_MAX_LINE) { /* elements of an array show descriptors that are there but once */
    t->len = 0;
    put_raw(t, p, size);
    return;
  }
  if (r.p == r.end) return;
  put_text(t, " payload=");
  if (t->secrets) put_hex(t, r.p, (size_t)(r.end - r.p));
  else put_number(t, "%" PRIu64 "B", (uint64_t)(r.end - r.p));
}

/* A frame that is not there as a whole gives 0 and *used = 0. */
int64_t uam_dump(const uint8_t *buf, size_t n, int flags, char *out, size_t cap, size_t *used) {
  text t = {out, 0, cap, (flags & 1) != 0};
  *used = 0;
  if (n < 8) return 0;
  if (memcmp(buf, "AMQP", 4) == 0) {
    *used = 8;
    put_protocol_header(&t, buf);
    return (int64_t)t.len;
  }
  size_t size = load_be32(buf);
  if (size < 8 || buf[4] < 2 || (size_t)buf[4] * 4 > size) {
    *used = n;
    put_raw(&t, buf, n);
  } else if (size <= n) {
    *used = size;
    put_frame(&t, buf, size);
  }
  return (int64_t)t.len;
}
