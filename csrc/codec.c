/* codec.c - the AMQP type system (part 1 of the specification) on bytes: a reader with a sticky error and a writer that
 * counts past the end of its room. Used by composite.c, tape.c, trace.c and, for single values, by every layer.
 *
 * Reading accepts every encoding that §1.6 allows for a type; writing emits the smallest one: uint 0x43 0x52 0x70,
 * ulong 0x44 0x53 0x80, boolean 0x41 0x42, list 0x45 0xc0 0xd0, the 8-bit form of binary, string, symbol up to 255 bytes.
 *
 * Nothing here trusts a size or count: a value leaves uam_read_value only after all of it, down to UAM_MAX_DEPTH, lies
 * inside its container and fills it exactly. Elements without bytes (an array of nulls) are cheap to claim and dear to
 * hold, so one value may have UAM_MAX_ITEMS of them in all. */
#include "uam_codec.h"

/* How the data of a format code is laid out: FIXED + width, or one of the others. */
enum { NONE = 0, FIXED = 1, VAR8 = 32, VAR32, MANY8, MANY32 };

static const struct {
  uint8_t kind, form;
} formats[256] = {
    [0x40] = {UAM_KIND_NULL, FIXED},          [0x41] = {UAM_KIND_BOOL, FIXED},
    [0x42] = {UAM_KIND_BOOL, FIXED},          [0x43] = {UAM_KIND_UINT, FIXED},
    [0x44] = {UAM_KIND_ULONG, FIXED},         [0x45] = {UAM_KIND_LIST, FIXED},
    [0x50] = {UAM_KIND_UBYTE, FIXED + 1},     [0x51] = {UAM_KIND_BYTE, FIXED + 1},
    [0x52] = {UAM_KIND_UINT, FIXED + 1},      [0x53] = {UAM_KIND_ULONG, FIXED + 1},
    [0x54] = {UAM_KIND_INT, FIXED + 1},       [0x55] = {UAM_KIND_LONG, FIXED + 1},
    [0x56] = {UAM_KIND_BOOL, FIXED + 1},      [0x60] = {UAM_KIND_USHORT, FIXED + 2},
    [0x61] = {UAM_KIND_SHORT, FIXED + 2},     [0x70] = {UAM_KIND_UINT, FIXED + 4},
    [0x71] = {UAM_KIND_INT, FIXED + 4},       [0x72] = {UAM_KIND_FLOAT, FIXED + 4},
    [0x73] = {UAM_KIND_CHAR, FIXED + 4},      [0x74] = {UAM_KIND_DECIMAL32, FIXED + 4},
    [0x80] = {UAM_KIND_ULONG, FIXED + 8},     [0x81] = {UAM_KIND_LONG, FIXED + 8},
    [0x82] = {UAM_KIND_DOUBLE, FIXED + 8},    [0x83] = {UAM_KIND_TIMESTAMP, FIXED + 8},
    [0x84] = {UAM_KIND_DECIMAL64, FIXED + 8}, [0x94] = {UAM_KIND_DECIMAL128, FIXED + 16},
    [0x98] = {UAM_KIND_UUID, FIXED + 16},     [0xa0] = {UAM_KIND_BINARY, VAR8},
    [0xa1] = {UAM_KIND_STRING, VAR8},         [0xa3] = {UAM_KIND_SYMBOL, VAR8},
    [0xb0] = {UAM_KIND_BINARY, VAR32},        [0xb1] = {UAM_KIND_STRING, VAR32},
    [0xb3] = {UAM_KIND_SYMBOL, VAR32},        [0xc0] = {UAM_KIND_LIST, MANY8},
    [0xc1] = {UAM_KIND_MAP, MANY8},           [0xd0] = {UAM_KIND_LIST, MANY32},
    [0xd1] = {UAM_KIND_MAP, MANY32},          [0xe0] = {UAM_KIND_ARRAY, MANY8},
    [0xf0] = {UAM_KIND_ARRAY, MANY32},        [0x00] = {UAM_KIND_DESCRIBED, NONE},
};

uint8_t uam_kind_of(uint8_t code) {
  return formats[code].form == NONE && code != 0 ? (uint8_t)UAM_KIND_ILLEGAL : formats[code].kind;
}

const char *const uam_kind_names[UAM_KIND_ILLEGAL] = {
    "null",   "boolean", "ubyte",  "ushort",    "uint",   "byte",  "short",     "int",       "char",
    "float",  "ulong",   "long",   "timestamp", "double", "uuid",  "decimal32", "decimal64", "decimal128",
    "binary", "string",  "symbol", "list",      "map",    "array", "described"};

/* ---- reader ---- */

void uam_read_fail(uam_reader *r, const char *why) {
  if (r->err == 0) {
    r->err = UAM_ERR_DECODE;
    r->why = why;
  }
  r->p = r->end;
}

static size_t left(const uam_reader *r) { return (size_t)(r->end - r->p); }

static const uint8_t *take(uam_reader *r, size_t n) {
  if (left(r) < n) {
    uam_read_fail(r, "ends too early");
    return NULL;
  }
  const uint8_t *p = r->p;
  r->p += n;
  return p;
}

uint8_t uam_read_code(uam_reader *r) {
  const uint8_t *p = take(r, 1);
  return p != NULL ? *p : 0;
}

static uam_span take_span(uam_reader *r, size_t n) {
  const uint8_t *p = take(r, n);
  return p != NULL ? (uam_span){p, n} : (uam_span){0};
}

/* Size and count in front of a list, map or array; the size counts the count's own bytes. */
static void read_many(uam_reader *r, uam_item *item, size_t width) {
  const uint8_t *p = take(r, 2 * width);
  if (p == NULL) return;
  size_t size = width == 1 ? p[0] : load_be32(p);
  item->count = width == 1 ? p[1] : load_be32(p + 4);
  if (size < width) {
    uam_read_fail(r, "has a size without room for its count");
    return;
  }
  item->data = take_span(r, size - width);
}

static void read_var(uam_reader *r, uam_item *item, size_t width) {
  const uint8_t *p = take(r, width);
  if (p != NULL) item->data = take_span(r, width == 1 ? p[0] : load_be32(p));
}

uam_item uam_read_item(uam_reader *r, uint8_t code) {
  uam_item item = {.kind = formats[code].kind, .code = code};
  uint8_t form = formats[code].form;
  if (r->err != 0) return item;
  switch (form) {
    case NONE:
      if (code != 0) {
        item.kind = UAM_KIND_ILLEGAL;
        uam_read_fail(r, "has an unknown format code");
      }
      break;
    case VAR8: read_var(r, &item, 1); break;
    case VAR32: read_var(r, &item, 4); break;
    case MANY8: read_many(r, &item, 1); break;
    case MANY32: read_many(r, &item, 4); break;
    default: item.data = take_span(r, (size_t)form - FIXED); break;
  }
  return item;
}

static uint64_t extend(uint64_t v, unsigned bits) {
  uint64_t sign = (uint64_t)1 << (bits - 1);
  return (v ^ sign) - sign;
}

uint64_t uam_item_bits(const uam_item *item) {
  uint64_t v = 0;
  const uint8_t *p = item->data.ptr;
  switch (item->data.len) {
    case 0: return item->code == 0x41;
    case 1: v = p[0]; break;
    case 2: v = load_be16(p); break;
    case 4: v = load_be32(p); break;
    default: v = load_be64(p); break;
  }
  bool is_signed = item->kind == UAM_KIND_BYTE || item->kind == UAM_KIND_SHORT || item->kind == UAM_KIND_INT ||
                   item->kind == UAM_KIND_LONG;
  return is_signed && item->data.len < 8 ? extend(v, (unsigned)item->data.len * 8) : v;
}

static void check_value(uam_reader *r, unsigned depth, uint32_t *empties);

static void check_array(uam_reader *r, const uam_item *array, unsigned depth, uint32_t *empties);

/* The data behind format code `code`, checked all through; `depth` is how deep it may still go. */
static void check_data(uam_reader *r, uint8_t code, unsigned depth, uint32_t *empties) {
  uam_item item = uam_read_item(r, code);
  if (r->err != 0 || item.kind < UAM_KIND_LIST) {
    if (code == 0x56 && r->err == 0 && item.data.ptr[0] > 1) uam_read_fail(r, "is a boolean neither 0 nor 1");
    if (code == 0x73 && r->err == 0 && load_be32(item.data.ptr) > 0x10ffff) uam_read_fail(r, "is no character");
    return;
  }
  if (code == 0x45) return;
  if (depth == 0) {
    uam_read_fail(r, "is nested too deep");
    return;
  }
  if (item.kind == UAM_KIND_DESCRIBED) {
    check_value(r, depth - 1, empties);
    check_value(r, depth - 1, empties);
    return;
  }
  uam_reader in = uam_reader_of(item.data.ptr, item.data.len);
  if (item.count > UAM_MAX_ITEMS) uam_read_fail(&in, "has too many items");
  if (item.kind == UAM_KIND_ARRAY) {
    check_array(&in, &item, depth - 1, empties);
  } else {
    if (item.kind == UAM_KIND_MAP && item.count % 2 != 0) uam_read_fail(&in, "is a map with an odd number of items");
    for (uint32_t i = 0; i < item.count && in.err == 0; i++) check_value(&in, depth - 1, empties);
  }
  if (in.err == 0 && in.p != in.end) uam_read_fail(&in, "has a size larger than its items");
  if (in.err != 0) uam_read_fail(r, in.why);
}

/* Constructor and elements of an array (§1.6.24). An empty one may lack its constructor. */
static void check_array(uam_reader *r, const uam_item *array, unsigned depth, uint32_t *empties) {
  if (r->err != 0 || (array->count == 0 && left(r) == 0)) return;
  uint8_t code = uam_read_code(r);
  for (; code == 0 && r->err == 0; code = uam_read_code(r)) {
    if (depth-- == 0) {
      uam_read_fail(r, "is nested too deep");
      return;
    }
    check_value(r, depth, empties);
  }
  if (r->err != 0) return;
  uint8_t form = formats[code].form;
  if (form == FIXED) {
    if (array->count > *empties) uam_read_fail(r, "has too many items");
    else *empties -= array->count;
    return;
  }
  if (form > FIXED && form < VAR8 && code != 0x56 && code != 0x73) {
    (void)take(r, (size_t)array->count * ((size_t)form - FIXED)); /* count is at most UAM_MAX_ITEMS: no overflow */
    return;
  }
  for (uint32_t i = 0; i < array->count && r->err == 0; i++) check_data(r, code, depth, empties);
  if (form == NONE) uam_read_fail(r, "has an unknown format code");
}

static void check_value(uam_reader *r, unsigned depth, uint32_t *empties) {
  uint8_t code = uam_read_code(r);
  if (r->err == 0) check_data(r, code, depth, empties);
}

uam_span uam_read_value(uam_reader *r) {
  const uint8_t *start = r->p;
  if (left(r) >= 4 && start[0] == 0x00 && start[1] == 0x53 && start[3] == 0x45) { /* accepted() and the like */
    r->p += 4;
    return (uam_span){start, 4};
  }
  uint32_t empties = UAM_MAX_ITEMS;
  check_value(r, UAM_MAX_DEPTH, &empties);
  return r->err == 0 ? (uam_span){start, (size_t)(r->p - start)} : (uam_span){0};
}

uam_span uam_read_outline(uam_reader *r) {
  const uint8_t *start = r->p;
  if (left(r) != 0 && *start == 0) return uam_read_value(r);
  uint8_t code = uam_read_code(r);
  (void)uam_read_item(r, code);
  return r->err == 0 ? (uam_span){start, (size_t)(r->p - start)} : (uam_span){0};
}

bool uam_read_null(uam_reader *r) {
  if (r->p == r->end || *r->p != 0x40) return false;
  r->p++;
  return true;
}

/* One value that must be of `kind`. */
static uam_item read_kind(uam_reader *r, uint8_t kind, const char *why) {
  uint8_t code = uam_read_code(r);
  if (r->err == 0 && formats[code].kind != kind) uam_read_fail(r, why);
  uam_item item = {.kind = kind, .code = code};
  if (r->err == 0) item = uam_read_item(r, code);
  if (r->err != 0) item = (uam_item){.kind = kind};
  return item;
}

static uint64_t read_bits(uam_reader *r, uint8_t kind, const char *why) {
  uam_item item = read_kind(r, kind, why);
  return r->err == 0 ? uam_item_bits(&item) : 0;
}

bool uam_read_bool(uam_reader *r) {
  uint64_t v = read_bits(r, UAM_KIND_BOOL, "is not a boolean");
  if (v > 1) uam_read_fail(r, "is a boolean neither 0 nor 1");
  return v == 1;
}

uint8_t uam_read_ubyte(uam_reader *r) { return (uint8_t)read_bits(r, UAM_KIND_UBYTE, "is not a ubyte"); }
uint16_t uam_read_ushort(uam_reader *r) { return (uint16_t)read_bits(r, UAM_KIND_USHORT, "is not a ushort"); }
uint32_t uam_read_uint(uam_reader *r) { return (uint32_t)read_bits(r, UAM_KIND_UINT, "is not a uint"); }
uint64_t uam_read_ulong(uam_reader *r) { return read_bits(r, UAM_KIND_ULONG, "is not a ulong"); }
uint64_t uam_read_timestamp(uam_reader *r) { return read_bits(r, UAM_KIND_TIMESTAMP, "is not a timestamp"); }
uam_span uam_read_binary(uam_reader *r) { return read_kind(r, UAM_KIND_BINARY, "is not binary").data; }
uam_span uam_read_string(uam_reader *r) { return read_kind(r, UAM_KIND_STRING, "is not a string").data; }
uam_span uam_read_symbol(uam_reader *r) { return read_kind(r, UAM_KIND_SYMBOL, "is not a symbol").data; }

uam_reader uam_read_list(uam_reader *r, uint32_t *count) {
  uam_item item = read_kind(r, UAM_KIND_LIST, "is not a list");
  if (r->err == 0 && item.count > item.data.len) uam_read_fail(r, "has a count larger than its size");
  *count = r->err == 0 ? item.count : 0;
  if (r->err != 0) return (uam_reader){r->end, r->end, r->err, r->why};
  return uam_reader_of(item.data.ptr, item.data.len);
}

/* ---- descriptors ---- */

static const struct {
  uint32_t code;
  const char *name;
} descriptors[] = {
#define UAM_COMPOSITE(n, code) {code, "amqp:" #n ":list"},
#define UAM_FIELD(n, f, T, need)
#define UAM_END(n)
#include "performatives.def"
#undef UAM_COMPOSITE
#undef UAM_FIELD
#undef UAM_END
    {0x71, "amqp:delivery-annotations:map"},
    {0x72, "amqp:message-annotations:map"},
    {0x74, "amqp:application-properties:map"},
    {0x75, "amqp:data:binary"},
    {0x76, "amqp:amqp-sequence:list"},
    {0x77, "amqp:amqp-value:*"},
    {0x78, "amqp:footer:map"},
};

/* The specification writes '-' where C can only write '_'. */
static bool same_name(uam_span symbol, const char *name) {
  size_t i = 0;
  for (; i < symbol.len && name[i] != '\0'; i++) {
    if (symbol.ptr[i] != (name[i] == '_' ? '-' : (uint8_t)name[i])) return false;
  }
  return i == symbol.len && name[i] == '\0';
}

static uint32_t code_of_symbol(uam_span symbol) {
  for (size_t i = 0; i < sizeof descriptors / sizeof *descriptors; i++) {
    if (same_name(symbol, descriptors[i].name)) return descriptors[i].code;
  }
  return 0;
}

uint64_t uam_read_descriptor(uam_reader *r) {
  if (left(r) >= 3 && r->p[0] == 0x00 && r->p[1] == 0x53) {
    uint8_t code = r->p[2];
    r->p += 3;
    return code;
  }
  if (uam_read_code(r) != 0) uam_read_fail(r, "is not a described value");
  if (r->err == 0 && r->p != r->end && formats[*r->p].kind == UAM_KIND_ULONG) {
    uint64_t code = uam_read_ulong(r);
    return code <= UINT32_MAX ? code : 0;
  }
  uam_reader value = *r;
  uam_read_value(r);
  if (r->err != 0 || formats[*value.p].kind != UAM_KIND_SYMBOL) return 0;
  return code_of_symbol(uam_read_symbol(&value));
}

/* ---- writer ---- */

void uam_write_raw(uam_writer *w, const void *p, size_t n) {
  if (n == 0) return;
  if (w->len <= w->cap && w->cap - w->len >= n) memcpy(w->p + w->len, p, n);
  w->len += n;
}

static void put(uam_writer *w, uint8_t a) {
  if (w->len < w->cap) w->p[w->len] = a;
  w->len++;
}

static void put2(uam_writer *w, uint8_t a, uint8_t b) {
  put(w, a);
  put(w, b);
}

void uam_write_null(uam_writer *w) { put(w, 0x40); }
void uam_write_bool(uam_writer *w, bool v) { put(w, v ? 0x41 : 0x42); }
void uam_write_ubyte(uam_writer *w, uint8_t v) { put2(w, 0x50, v); }

void uam_write_ushort(uam_writer *w, uint16_t v) {
  uint8_t b[3] = {0x60};
  store_be16(b + 1, v);
  uam_write_raw(w, b, sizeof b);
}

static void write_wide(uam_writer *w, uint8_t code, uint64_t v, size_t width) {
  uint8_t b[9] = {code};
  if (width == 4) store_be32(b + 1, (uint32_t)v);
  else store_be64(b + 1, v);
  uam_write_raw(w, b, 1 + width);
}

void uam_write_uint(uam_writer *w, uint32_t v) {
  if (v == 0) put(w, 0x43);
  else if (v <= 255) put2(w, 0x52, (uint8_t)v);
  else write_wide(w, 0x70, v, 4);
}

void uam_write_ulong(uam_writer *w, uint64_t v) {
  if (v == 0) put(w, 0x44);
  else if (v <= 255) put2(w, 0x53, (uint8_t)v);
  else write_wide(w, 0x80, v, 8);
}

void uam_write_timestamp(uam_writer *w, uint64_t v) { write_wide(w, 0x83, v, 8); }

/* code8 is the 8-bit form; the 32-bit form is always 0x10 above it. */
static void write_var(uam_writer *w, uint8_t code8, uam_span v) {
  if (v.len <= 255) put2(w, code8, (uint8_t)v.len);
  else write_wide(w, (uint8_t)(code8 + 0x10), v.len, 4);
  uam_write_raw(w, v.ptr, v.len);
}

void uam_write_binary(uam_writer *w, uam_span v) { write_var(w, 0xa0, v); }
void uam_write_string(uam_writer *w, uam_span v) { write_var(w, 0xa1, v); }
void uam_write_symbol(uam_writer *w, uam_span v) { write_var(w, 0xa3, v); }
