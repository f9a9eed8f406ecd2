/* test_transcripts.c - runs the files of tests/transcripts: what the engine is given and what it has to answer, told in the notation of
 * its own trace (csrc/trace.c). tests/transcripts/README.md explains the lines. Every scenario is run several times: its
 * input whole, byte by byte, and split at random, through the six functions and through uam_step; the result must be the
 * same each time, and what holds always (a send window that stays, frames no larger than the peer allows, a deadline
 * that lies ahead, no block of memory left) is checked after every step.
 *
 *   test_transcripts [-v] DIRECTORY | FILE...
 *
 * With the directory (tests) it also fails unless every field of performatives.def and every edge of states.def occurred. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <stdarg.h>

#include "heap.h"
#include "notation.h"
#include "uam_int.h"

enum { MAX_SCENARIOS = 512, MAX_LABELS = 64, MAX_STATES = 256 };

typedef struct line {
  char kind; /* one of < - ! > = ? */
  char *text;
  const char *file;
  int number;
} line;

typedef struct scenario {
  char *title;
  bool prelude, ordered; /* ordered: not run in pieces, since when output leaves depends on where the input is cut */
  line *lines;
  size_t n, cap;
} scenario;

static scenario scenarios[MAX_SCENARIOS];
static size_t n_scenarios;
static bool verbose;

/* ---- coverage ---- */
typedef struct edge {
  const char *machine, *input;
  uint8_t from, to;
  const char *from_name, *to_name;
  unsigned long seen;
} edge;

static edge edges[] = {
#define STATE_conn(s) UAM_CONN_##s
#define STATE_session(s) UAM_SESSION_##s
#define STATE_link(s) UAM_LINK_##s
#define UAM_EDGE(machine, state, input, next) \
  {#machine, #input, STATE_##machine(state), STATE_##machine(next), #state, #next, 0},
#include "states.def"
#undef UAM_EDGE
};
enum { N_EDGES = sizeof edges / sizeof edges[0], MAX_CODE = 0x80, MAX_FIELDS = 32 };
static unsigned long fields_seen[MAX_CODE][MAX_FIELDS], composites_seen[MAX_CODE];

static void see_edge(const char *machine, uint32_t from, uint32_t to, const char *input) {
  for (size_t i = 0; i < N_EDGES; i++) {
    edge *x = &edges[i];
    if (strcmp(x->machine, machine) == 0 && x->from == from && x->to == to &&
        (input == NULL || strcmp(x->input, input) == 0))
      x->seen++;
  }
}

static const char *input_of(const char *machine, uint32_t from, uint32_t to) {
  for (size_t i = 0; i < N_EDGES; i++)
    if (strcmp(edges[i].machine, machine) == 0 && edges[i].from == from && edges[i].to == to) return edges[i].input;
  return "";
}

static bool is_edge(const char *machine, uint32_t from, uint32_t to) {
  for (size_t i = 0; i < N_EDGES; i++)
    if (strcmp(edges[i].machine, machine) == 0 && edges[i].from == from && edges[i].to == to) return true;
  return false;
}

static void see_values(uam_reader *r, int depth);

static void see_fields(uint64_t code, const uam_item *list) {
  uam_reader r = uam_reader_of(list->data.ptr, list->data.len);
  if (code >= MAX_CODE || uam_composite_name((uint32_t)code) == NULL) return;
  composites_seen[code]++;
  for (uint32_t i = 0; i < list->count && i < MAX_FIELDS && !r.err; i++) {
    uam_span v = uam_read_value(&r);
    if (!r.err && v.len > 0 && v.ptr[0] != 0x40) fields_seen[code][i]++;
  }
}

static uint64_t see_value(uam_reader *r, int depth, uint64_t code) {
  uint8_t c = uam_read_code(r);
  if (r->err) return 0;
  if (c == 0) {
    uint64_t descriptor = see_value(r, depth, 0);
    see_value(r, depth, descriptor);
    return 0;
  }
  uam_item item = uam_read_item(r, c);
  if (r->err) return 0;
  if (item.kind == UAM_KIND_ULONG) return uam_item_bits(&item);
  if (item.kind == UAM_KIND_LIST && code != 0) see_fields(code, &item);
  if ((item.kind == UAM_KIND_LIST || item.kind == UAM_KIND_MAP) && depth > 0) {
    uam_reader inner = uam_reader_of(item.data.ptr, item.data.len);
    see_values(&inner, depth - 1);
  }
  return 0;
}

static void see_values(uam_reader *r, int depth) {
  while (r->p < r->end && !r->err) see_value(r, depth, 0);
}

static void see_frame(const uint8_t *p, size_t n) {
  size_t body = n >= 8 && memcmp(p, "AMQP", 4) != 0 ? (size_t)p[4] * 4 : n;
  if (body >= n) return;
  uam_reader r = uam_reader_of(p + body, n - body);
  see_values(&r, 8);
}

/* ---- a run ---- */
enum mode { WHOLE, BYTES, RANDOM, STEP, STEP_RANDOM };

typedef struct label {
  char name[24];
  uint32_t id;
} label;

typedef struct happening {
  uam_event ev;
  uint8_t *span, *tag;
} happening;

typedef struct run {
  const scenario *s;
  enum mode mode;
  uint32_t seed;
  uint64_t random;
  const line *at;
  bool failed, server, held, called, expect_result;
  heap heap;
  uam_engine *e;
  uint64_t now, committed, flushed;
  size_t step_sent;
  int64_t result;
  uint32_t first_id;
  uam_buf in, out, limit_out;
  happening *events;
  size_t n_events, cap_events, next_event;
  label labels[MAX_LABELS];
  size_t n_labels;
  uint32_t states[MAX_STATES][2]; /* of sessions and links: id, state */
  size_t n_states;
  uint32_t conn_state;
  long starts[3]; /* opens, begins, attaches that left and made no event of a state */
  unsigned long steps;
} run;

static unsigned long total_steps, total_runs, total_frames, failures;

static void fail(run *r, const char *format, ...) {
  static const char *const names[] = {"whole", "byte by byte", "split at random", "by uam_step",
                                      "by uam_step, split at random"};
  va_list args;
  if (r->failed) return;
  r->failed = true;
  failures++;
  fprintf(stderr, "%s:%d: %s (%s%s", r->at ? r->at->file : "?", r->at ? r->at->number : 0, r->s->title, names[r->mode],
          r->seed ? ", seed " : "");
  if (r->seed) fprintf(stderr, "%u", r->seed);
  fprintf(stderr, ")\n  ");
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fprintf(stderr, "\n");
}

static uint32_t next_random(run *r) {
  r->random = r->random * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(r->random >> 33);
}

static void put(uam_buf *b, const void *p, size_t n) {
  if (!uam_buf_put(b, &uam_mem_default, p, n)) abort();
}

/* What is held; never NULL, so that it may be added to. */
static const uint8_t *held_bytes(const uam_buf *b) {
  static const uint8_t none[1];
  return b->data != NULL ? b->data + b->head : none;
}

static uint8_t *copy_of(const uint8_t *p, size_t n) {
  uint8_t *c = malloc(n ? n : 1);
  if (c == NULL) abort();
  if (n > 0) memcpy(c, p, n);
  return c;
}

/* ---- names of things ---- */
static const char *const conn_states[] = {"START",      "HDR_RCVD",   "HDR_SENT",   "HDR_EXCH",   "OPEN_PIPE",
                                          "OC_PIPE",    "OPEN_RCVD",  "OPEN_SENT",  "CLOSE_PIPE", "OPENED",
                                          "CLOSE_RCVD", "CLOSE_SENT", "DISCARDING", "END"};
static const char *const sess_states[] = {"UNMAPPED", "BEGIN_SENT", "BEGIN_RCVD", "MAPPED",
                                          "END_SENT", "END_RCVD",   "DISCARDING"};
static const char *const link_states[] = {"DETACHED", "ATTACH_SENT", "ATTACH_RCVD",
                                          "ATTACHED", "DETACH_SENT", "DETACH_RCVD"};
static const char *const results[] = {"UAM_OK",       "UAM_ERR_ARG",    "UAM_ERR_STATE", "UAM_ERR_LIMIT",
                                      "UAM_ERR_SIZE", "UAM_ERR_DECODE", "UAM_ERR_NOMEM", "UAM_ERR_BROKEN"};
static const char *const event_names[] = {"?",          "conn",     "session", "link",   "mechanisms", "init",
                                          "challenge",  "response", "outcome", "open",   "close",      "begin",
                                          "end",        "attach",   "detach",  "credit", "message",    "settled",
                                          "peer-error", "lost",     "late"};

static const char *outcome_name(uint32_t code) {
  switch (code) {
    case UAM_OUT_NONE: return "none";
    case UAM_OUT_SENT: return "sent";
    case UAM_OUT_NOT_DELIVERED: return "not-delivered";
    case UAM_OUT_UNKNOWN: return "unknown";
    case UAM_OUT_OTHER: return "other";
    default: return uam_composite_name(code) ? uam_composite_name(code) : "?";
  }
}

static const char *label_of(const run *r, uint32_t id) {
  for (size_t i = 0; i < r->n_labels; i++)
    if (r->labels[i].id == id) return r->labels[i].name;
  return "#";
}

static uint32_t id_of(const run *r, const char *name) {
  for (size_t i = 0; i < r->n_labels; i++)
    if (strcmp(r->labels[i].name, name) == 0) return r->labels[i].id;
  return 0;
}

static void bind_label(run *r, const char *name, uint32_t id) {
  label *l = NULL;
  for (size_t i = 0; i < r->n_labels; i++)
    if (strcmp(r->labels[i].name, name) == 0) l = &r->labels[i];
  if (l == NULL && r->n_labels < MAX_LABELS) l = &r->labels[r->n_labels++];
  if (l == NULL || strlen(name) >= sizeof l->name) {
    fail(r, "too many labels, or too long a one");
    return;
  }
  strcpy(l->name, name);
  l->id = id;
}

/* ---- words of a line ---- */
static char *word(char **p) {
  while (**p == ' ') (*p)++;
  char *start = *p;
  while (**p != '\0' && **p != ' ') (*p)++;
  if (**p == ' ') *(*p)++ = '\0';
  while (**p == ' ') (*p)++;
  return start;
}

/* The next word if it is `name`, or begins with it when name ends in '='; what follows it is returned. */
static const char *option(char **p, const char *name) {
  size_t n = strlen(name);
  char *at = *p;
  if (strncmp(at, name, n) != 0) return NULL;
  if (name[n - 1] != '=' && at[n] != ' ' && at[n] != '\0') return NULL;
  return word(p) + n;
}

/* ---- comparing with * for any text ---- */
static bool glob(const char *pattern, const char *text) {
  const char *star = "\"*\"";
  const char *at = strstr(pattern, star);
  if (at == NULL) return strcmp(pattern, text) == 0;
  size_t n = (size_t)(at - pattern);
  if (strncmp(pattern, text, n) != 0 || text[n] != '"') return false;
  const char *end = text + n + 1;
  while (*end != '\0' && *end != '"') end += end[0] == '\\' && end[1] != '\0' ? 2 : 1;
  return *end == '"' && glob(at + 3, end + 1);
}

/* x=* as x="*" */
static char *with_stars(const char *text) {
  char *out = malloc(strlen(text) * 2 + 1), *o = out;
  if (out == NULL) abort();
  for (; *text != '\0'; text++) {
    if (text[0] == '=' && text[1] == '*') {
      memcpy(o, "=\"*\"", 4);
      o += 4;
      text++;
    } else {
      *o++ = *text;
    }
  }
  *o = '\0';
  return out;
}

static bool same_value(run *r, const char *expected, const uint8_t *p, size_t n, uint32_t code, char why[2048]) {
  char *pattern = with_stars(expected);
  uam_span v = code != 0 ? list_of(pattern) : value_of(pattern);
  if (v.ptr == NULL) fail(r, "can't be read: %s", expected);
  char *want = (char *)copy_of((const uint8_t *)text_of_value(v.ptr, v.len, code),
                               strlen(text_of_value(v.ptr, v.len, code)) + 1);
  const char *have = text_of_value(p, n, code);
  bool same = glob(want, have); /* the text, since the peer may have used wider encodings than ours */
  if (!same) snprintf(why, 2048, "expected %.900s\n  but have %.900s", want, have);
  free(want);
  free(pattern);
  return same;
}

/* ---- events ---- */
static uint32_t *state_of(run *r, uint32_t id) {
  for (size_t i = 0; i < r->n_states; i++)
    if (r->states[i][0] == id) return &r->states[i][1];
  if (r->n_states == MAX_STATES) abort();
  r->states[r->n_states][0] = id;
  r->states[r->n_states][1] = 0;
  return &r->states[r->n_states++][1];
}

/* States must follow each other along states.def; only the end of everything may come from anywhere. */
static void watch_state(run *r, const uam_event *ev) {
  static const char *const machines[] = {"", "conn", "session", "link"};
  if (ev->kind > UAM_EVENT_LINK_STATE) return;
  uint32_t *have = ev->kind == UAM_EVENT_CONN_STATE ? &r->conn_state : state_of(r, ev->id);
  if (*have != ev->first)
    fail(r, "%s %s leaves state %u, but was in %u", machines[ev->kind], label_of(r, ev->id), ev->first, *have);
  *have = ev->last;
  bool over = ev->kind == UAM_EVENT_CONN_STATE ? ev->last == UAM_CONN_END : false;
  if (!over && !is_edge(machines[ev->kind], ev->first, ev->last))
    fail(r, "%s went from state %u to %u, which is no edge", machines[ev->kind], ev->first, ev->last);
  see_edge(machines[ev->kind], ev->first, ev->last, NULL);
  const char *input = input_of(machines[ev->kind], ev->first, ev->last);
  if (strcmp(input, "S_OPEN") == 0 || strcmp(input, "S_BEGIN") == 0 || strcmp(input, "S_ATTACH") == 0)
    r->starts[ev->kind - 1]--;
}

/* An edge that leads back to its own state makes no event: it was taken by each open (begin, attach) without one. */
static void see_loops(const run *r) {
  if (r->starts[0] > 0) see_edge("conn", UAM_CONN_CLOSE_RCVD, UAM_CONN_CLOSE_RCVD, "S_OPEN");
  if (r->starts[1] > 0) see_edge("session", UAM_SESSION_END_RCVD, UAM_SESSION_END_RCVD, "S_BEGIN");
  if (r->starts[2] > 0) see_edge("link", UAM_LINK_DETACH_RCVD, UAM_LINK_DETACH_RCVD, "S_ATTACH");
}

static bool extends(const happening *a, const uam_event *ev, const uint8_t *span) {
  const uam_event *b = &a->ev;
  if (b->kind != ev->kind || b->id != ev->id) return false;
  if (ev->kind == UAM_EVENT_CREDIT) return b->flags == ev->flags;
  return ev->kind == UAM_EVENT_SETTLED && b->code == ev->code && b->flags == ev->flags && b->last + 1 == ev->first &&
         b->length == ev->length && memcmp(a->span, span, (size_t)ev->length) == 0;
}

static const uint8_t *place(const uint8_t *base, const uam_event *ev, uint64_t offset) {
  return ev->flags & UAM_FLAG_ADDRESS ? (const uint8_t *)(uintptr_t)offset : base + offset;
}

static void take_events(run *r, const uam_event *evs, size_t n, const uint8_t *base) {
  for (size_t i = 0; i < n; i++) {
    const uam_event *ev = &evs[i];
    static const uint8_t nothing;
    const uint8_t *span = ev->length ? place(base, ev, ev->offset) : &nothing;
    watch_state(r, ev);
    if (r->n_events > r->next_event && extends(&r->events[r->n_events - 1], ev, span)) {
      happening *h = &r->events[r->n_events - 1]; /* what the engine joins inside a batch, we join across them */
      if (ev->kind == UAM_EVENT_SETTLED) h->ev.last = ev->last;
      else h->ev = *ev;
      continue;
    }
    if (r->n_events == r->cap_events) {
      r->cap_events = r->cap_events ? r->cap_events * 2 : 64;
      r->events = realloc(r->events, r->cap_events * sizeof *r->events);
      if (r->events == NULL) abort();
    }
    happening *h = &r->events[r->n_events++];
    h->ev = *ev;
    h->ev.flags = (uint16_t)(ev->flags & ~(unsigned)UAM_FLAG_ADDRESS);
    h->span = copy_of(span, (size_t)ev->length);
    h->tag = copy_of(ev->tag_length ? place(base, ev, ev->tag_offset) : &nothing, ev->tag_length);
  }
}

static size_t hex_text(char *to, size_t room, const uint8_t *p, size_t n) {
  if (n > 64) return (size_t)snprintf(to, room, "%luB", (unsigned long)n);
  size_t at = (size_t)snprintf(to, room, "h'");
  for (size_t i = 0; i < n; i++) at += (size_t)snprintf(to + at, room - at, "%02x", p[i]);
  return at + (size_t)snprintf(to + at, room - at, "'");
}

/* The words of an event, without what its span holds. */
static void words_of_event(const run *r, const happening *h, char *out, size_t room) {
  const uam_event *ev = &h->ev;
  const char *id = label_of(r, ev->id), *name = ev->kind <= UAM_EVENT_LATE ? event_names[ev->kind] : "?";
  const char *flag = ev->flags & UAM_FLAG_REPLY ? " reply" : "";
  size_t at = 0;
  switch (ev->kind) {
    case UAM_EVENT_CONN_STATE: snprintf(out, room, "%s %s", name, conn_states[ev->last]); break;
    case UAM_EVENT_SESSION_STATE: snprintf(out, room, "%s %s %s", name, id, sess_states[ev->last]); break;
    case UAM_EVENT_LINK_STATE: snprintf(out, room, "%s %s %s", name, id, link_states[ev->last]); break;
    case UAM_EVENT_SASL_MECHANISMS:
      snprintf(out, room, "%s%s", name, ev->flags & UAM_FLAG_NOT_OFFERED ? " not-offered" : "");
      break;
    case UAM_EVENT_SASL_OUTCOME: snprintf(out, room, "%s %u", name, ev->code); break;
    case UAM_EVENT_BEGIN: snprintf(out, room, "%s %s%s", name, id, flag); break;
    case UAM_EVENT_END: snprintf(out, room, "%s %s", name, id); break;
    case UAM_EVENT_ATTACH:
      snprintf(out, room, "%s %s session=%s%s%s", name, id, label_of(r, ev->first), flag,
               ev->flags & UAM_FLAG_SENDER ? " sender" : "");
      break;
    case UAM_EVENT_DETACH:
      snprintf(out, room, "%s %s%s", name, id, ev->flags & UAM_FLAG_CLOSED ? " closed" : "");
      break;
    case UAM_EVENT_CREDIT:
      at = (size_t)snprintf(out, room, "%s %s %u%s", name, id, ev->first, ev->flags & UAM_FLAG_DRAIN ? " drain" : "");
      if (ev->last != 0) snprintf(out + at, room - at, " available=%u", ev->last);
      break;
    case UAM_EVENT_MESSAGE:
      at = (size_t)snprintf(out, room, "%s %s %u%s", name, id, ev->first,
                            ev->flags & UAM_FLAG_SETTLED ? " settled" : "");
      if (ev->last != 0) at += (size_t)snprintf(out + at, room - at, " format=%u", ev->last);
      at += (size_t)snprintf(out + at, room - at, " tag=");
      hex_text(out + at, room - at, h->tag, ev->tag_length);
      break;
    case UAM_EVENT_SETTLED:
      snprintf(out, room, "%s %s %u..%u %s%s", name, id, ev->first, ev->last, outcome_name(ev->code),
               ev->flags & UAM_FLAG_SETTLED ? " settled" : "");
      break;
    case UAM_EVENT_PEER_ERROR:
      snprintf(out, room, "%s %s%s%s", name,
               ev->code == UAM_SCOPE_CONNECTION ? "connection"
               : ev->code == UAM_SCOPE_SESSION  ? "session"
                                                : "link",
               ev->code == UAM_SCOPE_CONNECTION ? "" : " ", ev->code == UAM_SCOPE_CONNECTION ? "" : id);
      break;
    case UAM_EVENT_LATE: snprintf(out, room, "%s ch=%u %s", name, ev->first, uam_composite_name(ev->code)); break;
    default: snprintf(out, room, "%s", name);
  }
}

static uint32_t span_code(uint16_t kind) {
  switch (kind) {
    case UAM_EVENT_OPEN: return UAM_COMPOSITE_open;
    case UAM_EVENT_BEGIN: return UAM_COMPOSITE_begin;
    case UAM_EVENT_ATTACH: return UAM_COMPOSITE_attach;
    case UAM_EVENT_SASL_MECHANISMS: return UAM_COMPOSITE_sasl_mechanisms;
    case UAM_EVENT_SASL_INIT: return UAM_COMPOSITE_sasl_init;
    case UAM_EVENT_SASL_CHALLENGE: return UAM_COMPOSITE_sasl_challenge;
    case UAM_EVENT_SASL_RESPONSE: return UAM_COMPOSITE_sasl_response;
    case UAM_EVENT_SASL_OUTCOME: return UAM_COMPOSITE_sasl_outcome;
    default: return 0;
  }
}

static const char *text_of_event(const run *r, const happening *h) {
  static char out[4096];
  words_of_event(r, h, out, 512);
  size_t at = strlen(out);
  if (h->ev.length == 0) return out;
  out[at++] = ' ';
  if (h->ev.kind == UAM_EVENT_MESSAGE) hex_text(out + at, sizeof out - at, h->span, (size_t)h->ev.length);
  else
    snprintf(out + at, sizeof out - at, "%.3000s", text_of_value(h->span, (size_t)h->ev.length, span_code(h->ev.kind)));
  return out;
}

static bool is_state(const happening *h) { return h->ev.kind <= UAM_EVENT_LINK_STATE; }

/* What is expected without having been named: nothing but states. */
static void expect_no_more(run *r) {
  size_t n = frame_size(held_bytes(&r->out), uam_buf_len(&r->out));
  if (n > 0) fail(r, "unexpected -> %s", text_of_frame(held_bytes(&r->out), n));
  else if (uam_buf_len(&r->out) > 0 && !r->held) fail(r, "part of a frame was sent");
  for (; r->next_event < r->n_events; r->next_event++)
    if (!is_state(&r->events[r->next_event])) fail(r, "unexpected ! %s", text_of_event(r, &r->events[r->next_event]));
}

/* ---- what always holds ---- */
static void check_frame_out(run *r, const uint8_t *p, size_t n) {
  uam_conn_info info;
  uam_get_conn(r->e, &info);
  total_frames++;
  see_frame(p, n);
  if (memcmp(p, "AMQP", 4) == 0) return;
  uint32_t code = n > 10 && p[8] == 0 && p[9] == 0x53 ? p[10] : 0;
  bool own_open = code == UAM_COMPOSITE_open;
  if (!own_open && info.remote_max_frame_size != 0 && n > info.remote_max_frame_size)
    fail(r, "a frame of %lu bytes, but the peer takes %u", (unsigned long)n, info.remote_max_frame_size);
  if (p[5] == 0 && load_be16(p + 6) > info.remote_channel_max && info.state >= UAM_CONN_OPENED &&
      info.state < UAM_CONN_END)
    fail(r, "a frame on channel %u > channel-max %u", load_be16(p + 6), info.remote_channel_max);
  if (code == UAM_COMPOSITE_open || code == UAM_COMPOSITE_begin || code == UAM_COMPOSITE_attach)
    r->starts[code - UAM_COMPOSITE_open]++;
}

static void take_output(run *r, const uint8_t *p, size_t n) {
  put(&r->out, p, n);
  put(&r->limit_out, p, n);
  for (size_t size; (size = frame_size(held_bytes(&r->limit_out), uam_buf_len(&r->limit_out))) > 0;) {
    const uint8_t *f = held_bytes(&r->limit_out);
    check_frame_out(r, f, size);
    uam_buf_consume(&r->limit_out, size);
  }
}

static void check_always(run *r) {
  r->steps++;
  uam_conn_info info;
  if (uam_get_conn(r->e, &info) != UAM_OK) fail(r, "uam_conn");
  if ((info.state == UAM_CONN_END) != (info.transport_done != 0))
    fail(r, "transport_done in state %s", conn_states[info.state]);
  if (info.transport_done && uam_deadline(r->e) != UAM_FOREVER) fail(r, "a deadline after the end");
}

/* ---- moving bytes ---- */
static void events_classic(run *r) {
  const uam_event *evs;
  size_t count = uam_events(r->e, &evs);
  take_events(r, evs, count, r->e->in.window[r->e->in.current].data);
}

/* What is to be sent, in pieces as the mode says. */
static void output_classic(run *r, size_t most) {
  while (most > 0) {
    size_t n = 0;
    const uint8_t *w = uam_send_window(r->e, &n);
    if (n > most) n = most;
    if (r->mode == BYTES && n > 1) n = 1 + n / 16;
    if (r->mode == RANDOM && n > 1) n = 1 + next_random(r) % n;
    if (n == 0) break;
    uint8_t *sent = copy_of(w, n);
    int rc = uam_send_commit(r->e, n, r->now);
    if (rc != UAM_OK) fail(r, "uam_send_commit gives %d", rc);
    r->committed += n;
    most -= n;
    take_output(r, sent, n);
    free(sent);
  }
  events_classic(r);
}

static void step(run *r, const uint8_t *p, size_t n, int dry, size_t most) {
  uam_io io = {0};
  if (n > 0) {
    size_t cap;
    uint8_t *w = uam_recv_window(r->e, &cap);
    if (cap < n) fail(r, "a window of %lu bytes", (unsigned long)cap);
    else memcpy(w, p, n);
  }
  io.now = r->now;
  io.received = n;
  io.sent = r->step_sent;
  io.dry = dry;
  io.flushed = r->flushed;
  r->committed += r->step_sent;
  int rc = uam_step(r->e, &io);
  if (rc != UAM_OK) fail(r, "uam_step gives %d: %s", rc, uam_problem(r->e));
  take_events(r, io.events, io.n_events, io.base);
  r->step_sent = io.out_len < most ? io.out_len : most;
  take_output(r, io.out, r->step_sent);
  if (!r->failed && io.deadline != uam_deadline(r->e)) fail(r, "two deadlines");
}

static bool by_step(const run *r) { return r->mode == STEP || r->mode == STEP_RANDOM; }

static void check_window(run *r) {
  size_t n1 = 0, n2 = 0;
  const uint8_t *w1 = uam_send_window(r->e, &n1), *w2 = uam_send_window(r->e, &n2);
  if (n1 != n2 || (n1 > 0 && w1 != w2)) fail(r, "the send window moved by itself");
  if (uam_committed(r->e) != r->committed)
    fail(r, "committed is %lu, not %lu", (unsigned long)uam_committed(r->e), (unsigned long)r->committed);
}

static void pump(run *r, size_t most) {
  if (r->failed || r->e == NULL) return;
  if (!by_step(r)) {
    output_classic(r, most);
    if (most > 0) check_window(r);
  } else {
    do step(r, NULL, 0, 0, most);
    while (r->step_sent > 0 && most == SIZE_MAX && !r->failed);
    if (r->step_sent > 0) step(r, NULL, 0, 0, 0); /* so that what was taken is committed */
  }
  check_always(r);
}

static size_t piece(run *r, size_t n) {
  if (r->mode == BYTES) return 1;
  if ((r->mode == RANDOM || r->mode == STEP_RANDOM) && n > 1) {
    size_t k = 1 + next_random(r) % (n < 4000 ? 40 : n / 3);
    return k < n ? k : n;
  }
  return n;
}

static void feed(run *r) {
  while (uam_buf_len(&r->in) > 0 && !r->failed) {
    size_t cap = 0, n = piece(r, uam_buf_len(&r->in));
    uint8_t *w = uam_recv_window(r->e, &cap);
    if (cap == 0) {
      fail(r, "no room in the receive window");
      return;
    }
    if (n > cap) n = cap;
    if (by_step(r)) {
      step(r, r->in.data + r->in.head, n, 0, 0);
    } else {
      memcpy(w, r->in.data + r->in.head, n);
      int rc = uam_recv_commit(r->e, n, r->now);
      if (rc != UAM_OK) fail(r, "uam_recv_commit gives %d: %s", rc, uam_problem(r->e));
      events_classic(r);
    }
    uam_buf_consume(&r->in, n);
    if (!r->s->ordered && !r->held) pump(r, SIZE_MAX);
    check_always(r);
  }
  if (!r->held) pump(r, SIZE_MAX);
}

/* The clock moves on by ms and the transport has nothing to give. */
static void tick(run *r, uint64_t ms) {
  r->now += ms;
  if (by_step(r)) {
    step(r, NULL, 0, 1, r->held ? 0 : SIZE_MAX);
  } else {
    if (uam_recv_commit(r->e, 0, r->now) != UAM_OK) fail(r, "uam_recv_commit");
    events_classic(r);
    if (uam_send_commit(r->e, 0, r->now) != UAM_OK) fail(r, "uam_send_commit");
    events_classic(r);
  }
  if (!r->held) pump(r, SIZE_MAX);
  check_always(r);
  if (!r->held && uam_deadline(r->e) <= r->now)
    fail(r, "the deadline %lu has passed at %lu", (unsigned long)uam_deadline(r->e), (unsigned long)r->now);
}

/* ---- our own calls ---- */
static void new_engine(run *r, bool server) {
  uam_mem mem = heap_mem(&r->heap);
  r->server = server;
  r->e = uam_new(&mem, server ? UAM_SERVER : UAM_CLIENT);
  if (r->e == NULL) abort();
}

static int set_option(run *r, char *p) {
  static const char *const names[] = {"",           "pipeline",      "heartbeat", "trace", "max-message",
                                      "output-cap", "sasl-required", "explicit"};
  const char *name = word(&p);
  for (int i = 1; i <= UAM_OPT_EXPLICIT; i++)
    if (strcmp(names[i], name) == 0) return uam_set(r->e, i, strtoull(p, NULL, 0));
  return uam_set(r->e, atoi(name), strtoull(p, NULL, 0));
}

/* The content of h'..' (or nothing). */
static uam_span content_of(const char *text) {
  uam_span v = value_of(text);
  uam_reader r = uam_reader_of(v.ptr, v.len);
  return v.len > 0 ? uam_read_binary(&r) : v;
}

static int call_sasl(run *r, char *p) {
  const char *mechanism = word(&p), *host = option(&p, "hostname=");
  bool has = strncmp(p, "h'", 2) == 0;
  uam_span response = has ? content_of(p) : (uam_span){NULL, 0};
  return uam_sasl_client(r->e, mechanism, response.ptr, response.len, has, host);
}

static int64_t call_begin(run *r, char *p) {
  const char *name = word(&p);
  uam_span list = list_of(p);
  int64_t id = uam_begin(r->e, id_of(r, name), list.ptr, list.len);
  if (id > 0) bind_label(r, name, (uint32_t)id);
  return id < 0 ? id : 0;
}

static int64_t call_attach(run *r, char *p) {
  const char *session = word(&p), *name = word(&p);
  uam_span list = list_of(p);
  int64_t id = uam_attach(r->e, id_of(r, session), id_of(r, name), list.ptr, list.len);
  if (id > 0) bind_label(r, name, (uint32_t)id);
  return id < 0 ? id : 0;
}

static int call_detach(run *r, char *p) {
  const char *name = word(&p);
  int closed = option(&p, "closed") != NULL;
  uam_span error = value_of(p);
  return uam_detach(r->e, id_of(r, name), closed, error.ptr, error.len);
}

static int call_flow(run *r, char *p) {
  const char *name = word(&p);
  uint32_t credit = (uint32_t)strtoul(word(&p), NULL, 0);
  int flags = option(&p, "drain") ? UAM_FLAG_DRAIN : 0;
  flags |= option(&p, "echo") ? UAM_FLAG_ECHO : 0;
  return uam_flow(r->e, id_of(r, name), credit, flags);
}

static void add_payload(uam_buf *b, const char *text) {
  static uint8_t zeros[4096];
  if (*text == 'h') {
    uam_span s = content_of(text);
    put(b, s.ptr, s.len);
    return;
  }
  for (size_t n = strtoul(text, NULL, 10), k; n > 0; n -= k) {
    k = n < sizeof zeros ? n : sizeof zeros;
    put(b, zeros, k);
  }
}

/* send LINK [settled] [data] [tagged] [format=N] [xN] PAYLOAD...: a payload is h'..' or NB, that many zero bytes; each xN times */
static int64_t call_send(run *r, char *p) {
  const char *name = word(&p), *format = NULL, *times = NULL;
  int flags = option(&p, "settled") ? UAM_SEND_SETTLED : 0;
  flags |= option(&p, "data") ? UAM_SEND_DATA : 0;
  flags |= option(&p, "tagged") ? UAM_SEND_TAGGED : 0;
  format = option(&p, "format=");
  times = *p == 'x' ? word(&p) + 1 : "1";
  uam_buf all = {0};
  uint32_t lens[256];
  size_t n = 0, most = strtoul(times, NULL, 10);
  while (*p != '\0' && n < 256) {
    const char *text = word(&p);
    for (size_t i = 0; i < most && n < 256; i++) {
      size_t before = uam_buf_len(&all);
      add_payload(&all, text);
      lens[n++] = (uint32_t)(uam_buf_len(&all) - before);
    }
  }
  int64_t taken = uam_send_messages(r->e, id_of(r, name), all.data, lens, n,
                                    format ? (uint32_t)strtoul(format, NULL, 0) : 0, flags, &r->first_id);
  r->expect_result = taken != (int64_t)n;
  uam_buf_free(&all, &uam_mem_default);
  return taken;
}

static int call_settle(run *r, char *p) {
  const char *name = word(&p), *range = word(&p), *dots = strstr(range, "..");
  uint32_t first = (uint32_t)strtoul(range, NULL, 10), last = dots ? (uint32_t)strtoul(dots + 2, NULL, 10) : first;
  int settled = option(&p, "settled") != NULL;
  uam_span state = value_of(p);
  return uam_settle(r->e, id_of(r, name), first, last, settled, state.ptr, state.len);
}

static int call_flushed(run *r, const char *p) {
  uint64_t total = *p ? strtoull(p, NULL, 10) : r->committed;
  int rc = uam_flushed(r->e, total);
  if (rc == UAM_OK) r->flushed = total;
  return rc;
}

/* What is done to the runner rather than to the engine; false: no such word. */
static bool runner_word(run *r, const char *verb, char *p) {
  if (strcmp(verb, "client") == 0 || strcmp(verb, "server") == 0) new_engine(r, verb[0] == 's');
  else if (strcmp(verb, "tick") == 0) tick(r, strtoull(p, NULL, 10));
  else if (strcmp(verb, "hold") == 0) r->held = true;
  else if (strcmp(verb, "take") == 0) pump(r, strtoul(p, NULL, 10));
  else if (strcmp(verb, "release") == 0) r->held = false;
  else return false;
  r->called = true;
  return true;
}

static int64_t engine_word(run *r, const char *verb, char *p) {
  const uint8_t *none = NULL;
  uam_span v;
  if (strcmp(verb, "set") == 0) return set_option(r, p);
  if (strcmp(verb, "sasl") == 0) return call_sasl(r, p);
  if (strcmp(verb, "sasl-server") == 0) return uam_sasl_server(r->e, p);
  if (strcmp(verb, "challenge") == 0) return v = content_of(p), uam_sasl_challenge(r->e, v.ptr, v.len);
  if (strcmp(verb, "response") == 0) return v = content_of(p), uam_sasl_response(r->e, v.ptr, v.len);
  if (strcmp(verb, "outcome") == 0) return uam_sasl_outcome(r->e, atoi(p));
  if (strcmp(verb, "open") == 0) return v = list_of(p), uam_open(r->e, v.ptr, v.len);
  if (strcmp(verb, "close") == 0) return v = *p ? value_of(p) : (uam_span){none, 0}, uam_close(r->e, v.ptr, v.len);
  if (strcmp(verb, "begin") == 0) return call_begin(r, p);
  if (strcmp(verb, "attach") == 0) return call_attach(r, p);
  if (strcmp(verb, "detach") == 0) return call_detach(r, p);
  if (strcmp(verb, "flow") == 0) return call_flow(r, p);
  if (strcmp(verb, "drained") == 0) return uam_drained(r->e, id_of(r, p));
  if (strcmp(verb, "send") == 0) return call_send(r, p);
  if (strcmp(verb, "settle") == 0) return call_settle(r, p);
  if (strcmp(verb, "lost") == 0) return uam_lost(r->e);
  if (strcmp(verb, "flushed") == 0) return call_flushed(r, p);
  if (strcmp(verb, "end") == 0) {
    const char *name = word(&p);
    return v = *p ? value_of(p) : (uam_span){none, 0}, uam_end(r->e, id_of(r, name), v.ptr, v.len);
  }
  fail(r, "no such call: %s", verb);
  return 0;
}

/* ---- lines ---- */
static void on_call(run *r, char *p) {
  const char *verb = word(&p);
  if (r->e == NULL && strcmp(verb, "client") != 0 && strcmp(verb, "server") != 0) new_engine(r, false);
  if (!r->called && !r->held) expect_no_more(r);
  if (runner_word(r, verb, p)) return;
  r->called = true;
  r->result = engine_word(r, verb, p);
  if (r->result < 0) r->expect_result = true;
  check_always(r);
}

static void on_result(run *r, char *p) {
  const char *want = word(&p), *first = option(&p, "first=");
  char have[32];
  if (r->result < 0 && r->result >= -7) snprintf(have, sizeof have, "%s", results[-r->result]);
  else snprintf(have, sizeof have, "%ld", (long)r->result);
  r->expect_result = false;
  if (strcmp(want, have) != 0) fail(r, "expected = %s, but the result is %s (%s)", want, have, uam_problem(r->e));
  if (first != NULL && strtoul(first, NULL, 10) != r->first_id)
    fail(r, "expected first=%s, but it is %u", first, r->first_id);
}

static void on_frame_out(run *r, const char *text) {
  const uint8_t *p = held_bytes(&r->out);
  size_t n = frame_size(p, uam_buf_len(&r->out));
  char *pattern = with_stars(text);
  uam_span want = frame_of(pattern);
  if (want.ptr == NULL) {
    fail(r, "can't be read: %s", text);
  } else if (n == 0) {
    fail(r, "nothing was sent; expected -> %s", text);
  } else if (strstr(pattern, "\"*\"") != NULL) {
    const char *have = text_of_frame(p, n);
    if (!glob(text_of_frame(want.ptr, want.len), have))
      fail(r, "expected -> %s\n  but have -> %s", text_of_frame(want.ptr, want.len), have);
  } else if (n != want.len || memcmp(p, want.ptr, n) != 0) {
    fail(r, "expected -> %s\n  but have -> %s", text_of_frame(want.ptr, want.len), text_of_frame(p, n));
  }
  uam_buf_consume(&r->out, n);
  free(pattern);
}

/* Compares word by word; a # of ours (an id without a label) takes the name it is given. */
static bool same_words(run *r, const happening *h, char *want, char **rest) {
  char have_room[600], *have = have_room;
  words_of_event(r, h, have_room, sizeof have_room);
  char *copy = (char *)copy_of((uint8_t *)want, strlen(want) + 1), *at = copy;
  bool same = true;
  while (same && *have != '\0') {
    const char *w = word(&at), *v = word(&have);
    bool fresh = strcmp(v, "#") == 0 && *w != '\0' && id_of(r, w) == 0;
    if (strcmp(v, "session=#") == 0) fresh = strncmp(w, "session=", 8) == 0;
    if (fresh && v[0] == '#') bind_label(r, w, h->ev.id);
    same = fresh || strcmp(v, w) == 0;
  }
  *rest = want + (at - copy);
  free(copy);
  return same;
}

static void on_event(run *r, char *want) {
  bool state = strncmp(want, "conn ", 5) == 0 || strncmp(want, "session ", 8) == 0 || strncmp(want, "link ", 5) == 0;
  while (!state && r->next_event < r->n_events && is_state(&r->events[r->next_event])) r->next_event++;
  if (r->next_event >= r->n_events) {
    fail(r, "no more events; expected ! %s", want);
    return;
  }
  const happening *h = &r->events[r->next_event++];
  char *rest, why[2048];
  if (!same_words(r, h, want, &rest)) {
    if (state && is_state(h)) {
      on_event(r, want);
      return;
    }
    fail(r, "expected ! %s\n  but have ! %s", want, text_of_event(r, h));
  } else if (*rest != '\0' && h->ev.kind == UAM_EVENT_MESSAGE) {
    uam_buf b = {0};
    add_payload(&b, rest);
    if (uam_buf_len(&b) != h->ev.length || memcmp(b.data, h->span, uam_buf_len(&b)) != 0)
      fail(r, "expected payload %s\n  but have ! %s", rest, text_of_event(r, h));
    uam_buf_free(&b, &uam_mem_default);
  } else if (*rest != '\0' && !same_value(r, rest, h->span, (size_t)h->ev.length, span_code(h->ev.kind), why)) {
    fail(r, "%s", why);
  }
}

typedef struct figure {
  const char *name;
  uint64_t value;
} figure;

static void check_figures(run *r, char *p, const figure *f, size_t n) {
  while (*p != '\0') {
    char *w = word(&p), *is = strchr(w, '=');
    size_t i = 0;
    if (is != NULL) *is++ = '\0';
    while (i < n && strcmp(f[i].name, w) != 0) i++;
    if (i == n || is == NULL) fail(r, "no such figure: %s", w);
    else if (strtoull(is, NULL, 0) != f[i].value) fail(r, "%s is %lu, not %s", w, (unsigned long)f[i].value, is);
  }
}

/* ? deadline N|never, ? done yes|no, ? conn FIGURE=N..., ? link NAME FIGURE=N... */
static void on_question(run *r, char *p) {
  const char *what = word(&p);
  uam_conn_info c;
  uam_get_conn(r->e, &c);
  if (strcmp(what, "deadline") == 0) {
    uint64_t want = strcmp(p, "never") == 0 ? UAM_FOREVER : strtoull(p, NULL, 10);
    if (uam_deadline(r->e) != want) fail(r, "the deadline is %lu, not %s", (unsigned long)uam_deadline(r->e), p);
  } else if (strcmp(what, "done") == 0) {
    if ((c.transport_done != 0) != (strcmp(p, "yes") == 0)) fail(r, "transport_done is %u", c.transport_done);
  } else if (strcmp(what, "conn") == 0) {
    const figure f[] = {{"remote-max-frame-size", c.remote_max_frame_size},
                        {"remote-idle-timeout", c.remote_idle_timeout},
                        {"remote-channel-max", c.remote_channel_max},
                        {"max-frame-size", c.max_frame_size}};
    check_figures(r, p, f, sizeof f / sizeof f[0]);
  } else if (strcmp(what, "link") == 0) {
    uam_link_info l;
    if (uam_get_link(r->e, id_of(r, word(&p)), &l) != UAM_OK) fail(r, "there is no such link");
    const figure f[] = {{"credit", l.credit},
                        {"delivery-count", l.delivery_count},
                        {"unsettled", l.unsettled},
                        {"drain", l.drain},
                        {"handle", l.handle},
                        {"partial", l.partial},
                        {"max-message-size", l.remote_max_message_size},
                        {"snd-settle-mode", l.remote_snd_settle_mode}};
    check_figures(r, p, f, sizeof f / sizeof f[0]);
  } else {
    fail(r, "no such question: %s", what);
  }
}

static void on_frame_in(run *r, const char *text) {
  if (uam_buf_len(&r->in) == 0) {
    if (r->e == NULL) new_engine(r, false);
    if (r->called) pump(r, r->held ? 0 : SIZE_MAX);
    r->called = false;
    if (!r->held) expect_no_more(r);
  }
  uam_span f = frame_of(text);
  if (f.ptr == NULL) fail(r, "can't be read: %s", text);
  else put(&r->in, f.ptr, f.len);
  if (f.ptr != NULL && f.len > 8) see_frame(f.ptr, f.len);
}

static void run_line(run *r, const line *l) {
  char *text = (char *)copy_of((uint8_t *)l->text, strlen(l->text) + 1);
  r->at = l;
  if (r->expect_result && l->kind != '=') fail(r, "the call before gives %ld: %s", (long)r->result, uam_problem(r->e));
  if (l->kind != '<' && uam_buf_len(&r->in) > 0) feed(r);
  if (strchr("-!?", l->kind) && r->called) {
    pump(r, r->held ? 0 : SIZE_MAX);
    r->called = false;
  }
  if (!r->failed) switch (l->kind) {
      case '<': on_frame_in(r, text); break;
      case '-': on_frame_out(r, text); break;
      case '!': on_event(r, text); break;
      case '>': on_call(r, text); break;
      case '=': on_result(r, text); break;
      default: on_question(r, text);
    }
  free(text);
}

static void end_run(run *r) {
  if (r->expect_result) fail(r, "the last call gives %ld", (long)r->result);
  if (uam_buf_len(&r->in) > 0) feed(r);
  if (r->e != NULL && !r->held && !r->failed) pump(r, SIZE_MAX);
  if (!r->failed) expect_no_more(r);
  if (!r->failed) see_loops(r);
  total_steps += r->steps;
  total_runs++;
  uam_free(r->e);
  if (r->heap.live != 0) fail(r, "%ld blocks of memory are left", r->heap.live);
  for (size_t i = 0; i < r->n_events; i++) {
    free(r->events[i].span);
    free(r->events[i].tag);
  }
  free(r->events);
  uam_buf_free(&r->in, &uam_mem_default);
  uam_buf_free(&r->out, &uam_mem_default);
  uam_buf_free(&r->limit_out, &uam_mem_default);
}

static bool run_scenario(const scenario *s, enum mode mode, uint32_t seed) {
  run *r = calloc(1, sizeof *r);
  if (r == NULL) abort();
  r->s = s;
  r->mode = mode;
  r->seed = seed;
  r->random = seed * 2654435761u + 1;
  for (size_t i = 0; i < s->n && !r->failed; i++) run_line(r, &s->lines[i]);
  end_run(r);
  bool good = !r->failed;
  free(r);
  return good;
}

static void run_all_modes(const scenario *s) {
  if (verbose) printf("%s\n", s->title);
  if (!run_scenario(s, WHOLE, 0) || !run_scenario(s, STEP, 0) || s->ordered) return;
  if (!run_scenario(s, BYTES, 0)) return;
  for (uint32_t seed = 1; seed <= 5; seed++)
    if (!run_scenario(s, RANDOM, seed) || !run_scenario(s, STEP_RANDOM, seed)) return;
}

/* ---- reading the files ---- */
static char *text_copy(const char *s, size_t n) {
  char *c = (char *)copy_of((const uint8_t *)s, n + 1);
  c[n] = '\0';
  return c;
}

static void add_line(scenario *s, line l) {
  if (s->n == s->cap) {
    s->cap = s->cap ? s->cap * 2 : 32;
    s->lines = realloc(s->lines, s->cap * sizeof *s->lines);
    if (s->lines == NULL) abort();
  }
  s->lines[s->n++] = l;
}

static scenario *new_scenario(const char *title) {
  if (n_scenarios == MAX_SCENARIOS) abort();
  scenario *s = &scenarios[n_scenarios++];
  s->prelude = strncmp(title, "Prelude: ", 9) == 0;
  s->title = text_copy(s->prelude ? title + 9 : title, strlen(s->prelude ? title + 9 : title));
  return s;
}

static bool insert_prelude(scenario *s, const char *name) {
  for (size_t i = 0; i < n_scenarios; i++) {
    if (!scenarios[i].prelude || strcmp(scenarios[i].title, name) != 0) continue;
    for (size_t k = 0; k < scenarios[i].n; k++) {
      line l = scenarios[i].lines[k];
      l.text = text_copy(l.text, strlen(l.text));
      add_line(s, l);
    }
    return true;
  }
  return false;
}

static int bad_line(const char *file, int number, const char *text) {
  fprintf(stderr, "%s:%d: not a line of a transcript: %s\n", file, number, text);
  failures++;
  return 0;
}

static int add_transcript_line(scenario *s, const char *file, int number, const char *text) {
  if (text[0] == '\0' || text[0] == '#') return 0;
  if (s == NULL) return bad_line(file, number, text);
  if (text[0] == ' ' && s->n > 0) { /* goes on from the line before */
    line *l = &s->lines[s->n - 1];
    size_t a = strlen(l->text), b = strlen(text);
    l->text = realloc(l->text, a + b + 1);
    if (l->text == NULL) abort();
    memcpy(l->text + a, text, b + 1);
    return 0;
  }
  if (strncmp(text, "* ordered", 9) == 0) return s->ordered = true;
  if (strncmp(text, "* ", 2) == 0) return insert_prelude(s, text + 2) ? 0 : bad_line(file, number, text);
  size_t skip = strncmp(text, "<- ", 3) == 0 || strncmp(text, "-> ", 3) == 0 ? 3
                : strchr("!>=?", text[0]) && text[1] == ' '                  ? 2
                                                                             : 0;
  if (skip == 0) return bad_line(file, number, text);
  add_line(
      s, (line){.kind = text[0], .text = text_copy(text + skip, strlen(text + skip)), .file = file, .number = number});
  return 0;
}

static void load(const char *path) {
  static char text[1 << 16];
  FILE *f = fopen(path, "r");
  char *name = text_copy(path, strlen(path));
  bool inside = false;
  scenario *s = NULL;
  if (f == NULL) {
    fprintf(stderr, "%s can't be opened\n", path);
    failures++;
  }
  for (int number = 1; f != NULL && fgets(text, sizeof text, f) != NULL; number++) {
    text[strcspn(text, "\r\n")] = '\0';
    size_t n = strlen(text);
    while (n > 0 && text[n - 1] == ' ') text[--n] = '\0';
    if (strncmp(text, "```", 3) == 0) inside = inside ? false : strcmp(text + 3, "transcript") == 0;
    else if (inside) add_transcript_line(s, name, number, text);
    else if (strncmp(text, "## ", 3) == 0) s = new_scenario(text + 3);
  }
  if (f != NULL) fclose(f);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bool load_directory(const char *tests) {
  static char path[4096], *names[256];
  size_t n = 0;
  snprintf(path, sizeof path, "%s/transcripts", tests);
  DIR *d = opendir(path);
  if (d == NULL) return false;
  for (struct dirent *x; (x = readdir(d)) != NULL && n < 256;) {
    const char *end = strrchr(x->d_name, '.');
    if (end != NULL && strcmp(end, ".md") == 0 && strcmp(x->d_name, "README.md") != 0)
      names[n++] = text_copy(x->d_name, strlen(x->d_name));
  }
  closedir(d);
  qsort(names, n, sizeof names[0], by_name);
  for (size_t i = 0; i < n; i++) {
    snprintf(path, sizeof path, "%s/transcripts/%s", tests, names[i]);
    load(path);
    free(names[i]);
  }
  return true;
}

static void report_coverage(void) {
  unsigned long all = 0, seen = 0, edges_seen = 0;
  for (uint32_t code = 0; code < MAX_CODE; code++) {
    uint32_t n = uam_composite_name(code) ? uam_composite_field_count(code) : 0;
    if (uam_composite_name(code) && composites_seen[code] == 0)
      failures++, fprintf(stderr, "no transcript has a %s\n", uam_composite_name(code));
    for (uint32_t i = 0; i < n; i++) {
      all++;
      if (fields_seen[code][i] > 0) seen++;
      else
        failures++,
            fprintf(stderr, "no transcript has the field %s.%s\n", uam_composite_name(code), uam_field_name(code, i));
    }
  }
  for (size_t i = 0; i < N_EDGES; i++) {
    if (edges[i].seen > 0) edges_seen++;
    else
      failures++, fprintf(stderr, "no transcript takes the edge %s: %s, %s -> %s\n", edges[i].machine,
                          edges[i].from_name, edges[i].input, edges[i].to_name);
  }
  printf("transcripts: %lu of %lu fields, %lu of %lu edges occurred\n", seen, all, edges_seen, (unsigned long)N_EDGES);
}

int main(int argc, char **argv) {
  bool whole = false;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "-v") == 0) verbose = true;
    else if (strstr(argv[i], ".md") != NULL) load(argv[i]);
    else whole = load_directory(argv[i]);
  }
  unsigned long told = 0;
  for (size_t i = 0; i < n_scenarios; i++) {
    if (scenarios[i].prelude) continue;
    told++;
    run_all_modes(&scenarios[i]);
  }
  if (whole) report_coverage();
  printf("transcripts: %lu scenarios in %lu runs, %lu steps, %lu frames sent", told, total_runs, total_steps,
         total_frames);
  printf(failures ? ", %lu failures\n" : "\n", failures);
  return failures != 0 || told == 0;
}
