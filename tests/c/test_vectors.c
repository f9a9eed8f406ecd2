/* test_vectors.c - tests/vectors.json: each value's bytes are accepted, shown as what they are by the dump and by the tape,
 * refused when cut short; canonical ones are what the notation is read back to. Malformed ones are refused everywhere. */
#include <inttypes.h>

#include "check.h"
#include "json.h"
#include "uam_codec.h"

static char wanted[1 << 16]; /* the vector's value in the notation of trace.c */
static size_t wanted_len;

static void want(const char *format, const char *text) {
  int n = snprintf(wanted + wanted_len, sizeof wanted - wanted_len, format, text);
  wanted_len += (size_t)n;
  if (wanted_len >= sizeof wanted) json_die("value too long");
}

static void want_quoted(const json *v) {
  want("%s", "\"");
  for (size_t i = 0; i < v->len; i++) {
    char part[8];
    unsigned char c = (unsigned char)v->text[i];
    if (c == '"' || c == '\\') snprintf(part, sizeof part, "\\%c", c);
    else if (c == '\n') snprintf(part, sizeof part, "\\n");
    else if (c < 0x20 || c > 0x7e) snprintf(part, sizeof part, "\\x%02x", c);
    else snprintf(part, sizeof part, "%c", c);
    want("%s", part);
  }
  want("%s", "\"");
}

static void want_value(const json *v);

static void want_items(const json *items, const char *open, const char *close) {
  want("%s", open);
  for (const json *v = items->first; v != NULL; v = v->next) {
    if (v != items->first) want("%s", " ");
    if (v->kind == '[') {
      want_value(v->first);
      want("%s", "=");
      want_value(v->first->next);
    } else {
      want_value(v);
    }
  }
  want("%s", close);
}

static void want_array(const json *v) {
  const json *items = json_get(v, "value");
  want("%s", "@");
  if (items->first == NULL) want("%s", json_text(v, "of"));
  want_items(items, "[", "]");
}

static void want_char(const char *text) {
  char part[32];
  snprintf(part, sizeof part, "char(0x%lx)", strtoul(text, NULL, 10));
  want("%s", part);
}

static void want_value(const json *v) {
  static const struct {
    const char *type, *format;
  } plain[] = {{"boolean", "%s"},
               {"ubyte", "%su8"},
               {"ushort", "%su16"},
               {"uint", "%su32"},
               {"ulong", "%su64"},
               {"byte", "%si8"},
               {"short", "%si16"},
               {"int", "%si32"},
               {"long", "%si64"},
               {"float", "float(0x%s)"},
               {"double", "double(0x%s)"},
               {"timestamp", "timestamp(%s)"},
               {"uuid", "uuid(%s)"},
               {"binary", "h'%s'"},
               {"decimal32", "decimal32(h'%s')"},
               {"decimal64", "decimal64(h'%s')"},
               {"decimal128", "decimal128(h'%s')"}};
  const char *type = json_text(v, "type");
  const json *value = json_get(v, "value");
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
    if (strcmp(type, plain[i].type) == 0) {
      want(plain[i].format, value->text);
      return;
    }
  }
  if (strcmp(type, "null") == 0) want("%s", "null");
  else if (strcmp(type, "char") == 0) want_char(value->text);
  else if (strcmp(type, "string") == 0) want_quoted(value);
  else if (strcmp(type, "symbol") == 0) want("%s", ":"), want_quoted(value);
  else if (strcmp(type, "list") == 0) want_items(value, "[", "]");
  else if (strcmp(type, "map") == 0) want_items(value, "{", "}");
  else if (strcmp(type, "array") == 0) want_array(v);
  else if (strcmp(type, "described") == 0) {
    want("%s", "described(");
    want_value(json_get(v, "descriptor"));
    want("%s", " ");
    want_value(value);
    want("%s", ")");
  } else {
    json_die(type);
  }
}

/* ---- the tape as the same text: an independent reading of the comment in tape.c ---- */

static char shown[1 << 16];
static size_t shown_len;
static const uint8_t *base;

static void show(const char *format, uint64_t v) {
  int n = snprintf(shown + shown_len, sizeof shown - shown_len, format, v);
  shown_len += (size_t)n;
  if (shown_len >= sizeof shown) json_die("tape too long");
}

static void show_text(const char *text) {
  for (; *text != '\0'; text++) show("%c", (uint64_t)(unsigned char)*text);
}

static void show_bytes(const uint8_t *p, size_t n, bool quoted) {
  show_text(quoted ? "\"" : "h'");
  for (size_t i = 0; i < n; i++) {
    if (!quoted) show("%02" PRIx64, p[i]);
    else if (p[i] == '"' || p[i] == '\\') show_text("\\"), show("%c", p[i]);
    else if (p[i] == '\n') show_text("\\n");
    else if (p[i] < 0x20 || p[i] > 0x7e) show("\\x%02" PRIx64, p[i]);
    else show("%c", p[i]);
  }
  show_text(quoted ? "\"" : "'");
}

static void show_inline(unsigned kind, uint64_t n) {
  static const char *const signed_suffix[] = {[5] = "i8", [6] = "i16", [7] = "i32"};
  switch (kind) {
    case 0: show_text("null"); break;
    case 1: show_text(n != 0 ? "true" : "false"); break;
    case 2: show("%" PRIu64 "u8", n); break;
    case 3: show("%" PRIu64 "u16", n); break;
    case 4: show("%" PRIu64 "u32", n); break;
    case 8: show("char(0x%" PRIx64 ")", n); break;
    case 9: show("float(0x%08" PRIx64 ")", n); break;
    default:
      CHECK(n < 4294967296u);
      show("%" PRId64, n - 2147483648u);
      show_text(signed_suffix[kind]);
      break;
  }
}

static void show_uuid(const uint8_t *p) {
  show_text("uuid(");
  for (size_t i = 0; i < 16; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) show_text("-");
    show("%02" PRIx64, p[i]);
  }
  show_text(")");
}

static void show_wide(unsigned kind, uint64_t n, uint64_t word) {
  switch (kind) {
    case 10: show("%" PRIu64 "u64", word); break;
    case 11: show("%" PRId64 "i64", word); break;
    case 12: show("timestamp(%" PRId64 ")", word); break;
    case 13: show("double(0x%016" PRIx64 ")", word); break;
    case 14: show_uuid(base + word); break;
    case 15:
    case 16:
    case 17:
      show("decimal%" PRIu64 "(", n * 8);
      show_bytes(base + word, n, false);
      show_text(")");
      break;
    case 18: show_bytes(base + word, n, false); break;
    case 20: show_text(":"); /* fall through */
    default: show_bytes(base + word, n, true); break;
  }
}

static const uint64_t *show_tape(const uint64_t *w);

static const uint64_t *show_array(const uint64_t *w, uint64_t n) {
  uint64_t constructor = *w++, descriptors = constructor >> 8;
  const uint64_t *chain = w;
  for (uint64_t i = 0; i < descriptors; i++) { /* past the descriptors, showing nothing */
    size_t mark = shown_len;
    w = show_tape(w);
    shown_len = mark;
  }
  show_text("@");
  if (n == 0) show_text(uam_kind_names[uam_kind_of((uint8_t)constructor)]);
  show_text("[");
  for (uint64_t i = 0; i < n; i++) {
    const uint64_t *d = chain;
    if (i != 0) show_text(" ");
    for (uint64_t k = 0; k < descriptors; k++) {
      show_text("described(");
      d = show_tape(d);
      show_text(" ");
    }
    w = show_tape(w);
    for (uint64_t k = 0; k < descriptors; k++) show_text(")");
  }
  show_text("]");
  return w;
}

static const uint64_t *show_tape(const uint64_t *w) {
  unsigned kind = *w & 0xff;
  uint64_t n = *w++ >> 8;
  if (kind <= 9) {
    show_inline(kind, n);
  } else if (kind <= 20) {
    show_wide(kind, n, *w++);
  } else if (kind == 21 || kind == 22) {
    show_text(kind == 21 ? "[" : "{");
    for (uint64_t i = 0; i < n; i++) {
      if (i != 0) show_text(" ");
      w = show_tape(w);
      if (kind == 21) continue;
      show_text("=");
      w = show_tape(w);
    }
    show_text(kind == 21 ? "]" : "}");
  } else if (kind == 23) {
    w = show_array(w, n);
  } else {
    CHECK(kind == 24 && n == 0);
    show_text("described(");
    w = show_tape(w);
    show_text(" ");
    w = show_tape(w);
    show_text(")");
  }
  return w;
}

static void check_tape(const uint8_t *p, size_t n) {
  static uint64_t words[1 << 12];
  int64_t len = uam_tape(p, n, words, sizeof words / sizeof *words);
  CHECK(len > 0 && len < 1 << 12 && uam_tape(p, n, NULL, 0) == len);
  if (len <= 0) return;
  shown_len = 0;
  base = p;
  CHECK(show_tape(words) == words + len);
  if (strcmp(shown, wanted) != 0) FAIL("the tape says %s, not %s", shown, wanted);
}

/* ---- */

static size_t unhex(const char *hex, uint8_t *to) {
  size_t n = 0;
  for (; hex[0] != '\0'; hex += 2) {
    unsigned v;
    if (sscanf(hex, "%2x", &v) != 1) json_die("bad hex");
    to[n++] = (uint8_t)v;
  }
  return n;
}

/* In memory of its own, so that the sanitizer sees a read past the end. */
static int read_cut(const uint8_t *p, size_t n, bool *whole) {
  uint8_t *copy = malloc(n + 1);
  memcpy(copy, p, n);
  uam_reader r = uam_reader_of(copy, n);
  (void)uam_read_value(&r);
  *whole = r.p == r.end;
  free(copy);
  return r.err;
}

static void check_accepted(const uint8_t *p, size_t n) {
  bool whole;
  CHECK(read_cut(p, n, &whole) == 0 && whole);
  for (size_t cut = 0; cut < n; cut++) {
    if (read_cut(p, cut, &whole) != UAM_ERR_DECODE) FAIL("%zu of %zu bytes are a value", cut, n);
  }
}

/* The value as the body of a frame: both texts read back to one and the same frame, canonical bytes to themselves. */
static void check_text(const uint8_t *p, size_t n, bool canonical) {
  static char text[1 << 16];
  static uint8_t frame[1 << 12], from_text[1 << 12], from_dump[1 << 12];
  size_t used;
  memset(frame, 0, 8);
  store_be32(frame, (uint32_t)n + 8);
  frame[4] = 2;
  memcpy(frame + 8, p, n);
  int64_t shown_frame = uam_dump(frame, n + 8, 1, text, sizeof text, &used);
  CHECK(used == n + 8 && shown_frame > 5 && (size_t)shown_frame < sizeof text);
  int64_t a = uam_undump(text, (size_t)shown_frame, from_dump, sizeof from_dump);
  int64_t b = uam_undump(wanted, strlen(wanted), from_text, sizeof from_text);
  CHECK(a > 0 && b > 0);
  if (strstr(text, " *") != NULL) return; /* elements without bytes stay so, where the vector spells them out */
  if (a != b || memcmp(from_dump, from_text, (size_t)b) != 0)
    FAIL("%s and %.*s differ", wanted, (int)shown_frame, text);
  if (!canonical) return;
  if ((size_t)b != n + 8 || memcmp(from_text + 8, p, n) != 0) FAIL("%s is not encoded canonically", wanted);
}

static void check_scalar(const json *v, const uint8_t *p, size_t n) {
  const char *type = json_text(v, "type");
  uint8_t b[600];
  uam_writer w = {b, 0, sizeof b};
  uam_reader r = uam_reader_of(p, n);
  if (strcmp(type, "boolean") == 0) uam_write_bool(&w, uam_read_bool(&r));
  else if (strcmp(type, "ubyte") == 0) uam_write_ubyte(&w, uam_read_ubyte(&r));
  else if (strcmp(type, "ushort") == 0) uam_write_ushort(&w, uam_read_ushort(&r));
  else if (strcmp(type, "uint") == 0) uam_write_uint(&w, uam_read_uint(&r));
  else if (strcmp(type, "ulong") == 0) uam_write_ulong(&w, uam_read_ulong(&r));
  else if (strcmp(type, "timestamp") == 0) uam_write_timestamp(&w, uam_read_timestamp(&r));
  else if (strcmp(type, "binary") == 0) uam_write_binary(&w, uam_read_binary(&r));
  else if (strcmp(type, "string") == 0) uam_write_string(&w, uam_read_string(&r));
  else if (strcmp(type, "symbol") == 0) uam_write_symbol(&w, uam_read_symbol(&r));
  else return;
  CHECK(r.err == 0 && r.p == r.end);
  if (json_get(v, "canonical") != NULL) CHECK(w.len == n && memcmp(b, p, n) == 0);
  else CHECK(w.len < n || p[0] == 0x56);
}

int main(int argc, char **argv) {
  char path[512];
  static uint8_t bytes[1 << 12];
  snprintf(path, sizeof path, "%s/vectors.json", argc > 1 ? argv[1] : "../tests");
  json *root = json_load(path);
  unsigned vectors = 0, malformed = 0;
  for (const json *v = json_get(root, "vectors")->first; v != NULL; v = v->next, vectors++) {
    size_t n = unhex(json_text(v, "bytes"), bytes);
    wanted_len = 0;
    want_value(v);
    check_accepted(bytes, n);
    check_tape(bytes, n);
    check_text(bytes, n, json_get(v, "canonical") != NULL);
    check_scalar(v, bytes, n);
  }
  for (const json *v = json_get(root, "malformed")->first; v != NULL; v = v->next, malformed++) {
    bool whole;
    size_t n = unhex(json_text(v, "bytes"), bytes);
    if (read_cut(bytes, n, &whole) != UAM_ERR_DECODE) FAIL("accepted: %s", json_text(v, "why"));
    CHECK(uam_tape(bytes, n, NULL, 0) == UAM_ERR_DECODE);
  }
  CHECK(vectors >= 200 && malformed >= 80);
  json_free(root);
  return done("vectors");
}
