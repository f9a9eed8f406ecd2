/* engine.c - the engine as its users see it: life, windows of bytes, the dispatch of received frames to the layer they
 * concern (one switch), and the output, produced by one function in a fixed order of phases. Everything protocol-minded
 * is below: conn.c, session.c, link.c, delivery.c. */
#include "uam_int.h"

/* ---- life ---- */
uam_engine *uam_new(const uam_mem *mem, int role) {
  const uam_mem *m = mem != NULL ? mem : &uam_mem_default;
  uam_engine *e = uam_mem_alloc(m, sizeof *e);
  if (e == NULL) return NULL;
  e->mem = *m;
  e->role = role == UAM_SERVER ? UAM_SERVER : UAM_CLIENT;
  e->options.heartbeat_permille = 500;
  e->options.max_message = UAM_DEFAULT_MESSAGE;
  e->options.output_cap = UAM_OUTPUT_CAP;
  e->conn.max_frame = UAM_MIN_MAX_FRAME; /* until our open says more */
  e->conn.remote_max_frame = UAM_MIN_MAX_FRAME;
  e->conn.channel_max = UINT16_MAX;
  return e;
}

static void free_all_bufs(uam_engine *e) {
  uam_buf *all[] = {&e->out.buf,        &e->events.text,      &e->sasl.mechanism, &e->sasl.response, &e->sasl.hostname,
                    &e->conn.open_args, &e->conn.close_error, &e->traced.text,    &e->traced.out};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) uam_buf_free(all[i], &e->mem);
}

void uam_free(uam_engine *e) {
  if (e == NULL) return;
  e->events.are_lent = true;
  uam_event_reset(e);
  for (size_t i = 0; i < e->ids.cap_sessions; i++)
    if (e->ids.sessions[i] != NULL) uam_session_free(e, e->ids.sessions[i]);
  free_all_bufs(e);
  uam_map_free(&e->ids.by_remote_channel, &e->mem);
  uam_mem_free(&e->mem, e->ids.sessions);
  uam_mem_free(&e->mem, e->ids.links);
  uam_mem_free(&e->mem, e->events.queue);
  uam_mem_free(&e->mem, e->events.lent);
  uam_mem_free(&e->mem, e->in.window[0].data);
  uam_mem_free(&e->mem, e->in.window[1].data);
  uam_mem mem = e->mem;
  uam_mem_free(&mem, e);
}

int uam_set(uam_engine *e, int option, uint64_t value) {
  if (e->fatal) return e->fatal;
  switch (option) {
    case UAM_OPT_PIPELINE: e->options.pipeline = value != 0; return UAM_OK;
    case UAM_OPT_HEARTBEAT:
      if (value < 1 || value > 1000)
        return uam_refuse(e, UAM_ERR_ARG, "heartbeat of %llu per mille", (unsigned long long)value);
      e->options.heartbeat_permille = (uint32_t)value;
      return UAM_OK;
    case UAM_OPT_TRACE: e->options.trace = (int)(value < 2 ? value : 2); return UAM_OK;
    case UAM_OPT_MAX_MESSAGE: e->options.max_message = value < UAM_MAX_MESSAGE ? value : UAM_MAX_MESSAGE; return UAM_OK;
    case UAM_OPT_OUTPUT_CAP:
      if (value == 0 || value > UAM_OUTPUT_HARD)
        return uam_refuse(e, UAM_ERR_ARG, "output cap of %llu bytes", (unsigned long long)value);
      e->options.output_cap = (size_t)value;
      return UAM_OK;
    case UAM_OPT_SASL_REQUIRED: e->options.sasl_required = value != 0; return UAM_OK;
    case UAM_OPT_EXPLICIT: e->options.all_fields = value != 0; return UAM_OK;
    default: return uam_refuse(e, UAM_ERR_ARG, "no option %d", option);
  }
}

const char *uam_problem(const uam_engine *e) { return e->problem; }
uint64_t uam_committed(const uam_engine *e) { return e->out.committed; }

const char *uam_trace(uam_engine *e, size_t *n) {
  uam_buf swap = e->traced.out;
  e->traced.out = e->traced.text;
  e->traced.text = swap;
  e->traced.text.head = e->traced.text.tail = 0;
  *n = uam_buf_len(&e->traced.out);
  return *n > 0 ? (const char *)e->traced.out.data + e->traced.out.head : "";
}

/* ---- dispatch ---- */
static void on_session_frame(uam_engine *e, uam_session *s, uint32_t code, const uam_any *any, uam_span list,
                             uam_span payload) {
  uam_link *l = NULL;
  switch (code) {
    case UAM_COMPOSITE_attach: uam_link_on_attach(e, s, &any->attach, list); return;
    case UAM_COMPOSITE_flow: uam_session_on_flow(e, s, &any->flow); return;
    case UAM_COMPOSITE_disposition: uam_delivery_on_disposition(e, s, &any->disposition); return;
    case UAM_COMPOSITE_transfer:
      s->in.next_id++;
      if (s->in.window == 0) {
        uam_session_error(e, s, "amqp:session:window-violation", "transfer beyond incoming-window");
        return;
      }
      if (--s->in.window <= s->in.window_max / 2) {
        s->want.flow = true;
        uam_session_dirty(e, s);
      }
      l = uam_map_get(&s->by_remote_handle, any->transfer.handle);
      if (l != NULL) uam_delivery_on_transfer(e, l, &any->transfer, payload);
      break;
    case UAM_COMPOSITE_detach:
      l = uam_map_get(&s->by_remote_handle, any->detach.handle);
      if (l != NULL) uam_link_on_detach(e, l, &any->detach);
      break;
    default: return;
  }
  if (l == NULL)
    uam_session_error(e, s, "amqp:session:unattached-handle", "%s.handle %lu is not attached", uam_composite_name(code),
                      (unsigned long)(code == UAM_COMPOSITE_transfer ? any->transfer.handle : any->detach.handle));
}

/* Frames on a session's channel: which of them count in which of its states (§2.5.5). */
static void on_channel(uam_engine *e, uint16_t channel, uint32_t code, const uam_any *any, uam_span list,
                       uam_span payload) {
  uam_session *s = uam_map_get(&e->ids.by_remote_channel, channel);
  if (s == NULL) {
    if (uam_session_late(e, channel, code)) return;
    uam_conn_error(e, "amqp:not-allowed", "%s on channel %u, which is not begun", uam_composite_name(code),
                   (unsigned)channel);
    return;
  }
  if (code == UAM_COMPOSITE_end) {
    uam_session_on_end(e, s, &any->end);
    return;
  }
  bool closing =
      s->state == UAM_SESSION_END_SENT && (code == UAM_COMPOSITE_disposition || code == UAM_COMPOSITE_detach);
  if (s->state == UAM_SESSION_MAPPED || s->state == UAM_SESSION_BEGIN_RCVD || closing)
    on_session_frame(e, s, code, any, list, payload);
}

static void on_performative(uam_engine *e, uint16_t channel, uint32_t code, const uam_any *any, uam_span list,
                            uam_span payload) {
  bool opened = e->conn.state == UAM_CONN_OPENED || e->conn.state == UAM_CONN_OPEN_RCVD;
  switch (code) {
    case UAM_COMPOSITE_open: uam_conn_on_open(e, &any->open, list); return;
    case UAM_COMPOSITE_close: uam_conn_on_close(e, &any->close); return;
    case UAM_COMPOSITE_begin:
      if (opened) uam_session_on_begin(e, channel, &any->begin, list);
      break;
    default:
      if (opened) on_channel(e, channel, code, any, list, payload);
  }
  bool over = e->conn.state == UAM_CONN_CLOSE_SENT || e->conn.state == UAM_CONN_CLOSE_RCVD;
  if (!opened && !over) uam_conn_error(e, "amqp:not-allowed", "%s before open", uam_composite_name(code));
}

static void on_amqp_frame(uam_engine *e, const uam_frame *f) {
  if (f->type != 0) {
    uam_conn_error(e, "amqp:connection:framing-error", "frame of type %u", (unsigned)f->type);
    return;
  }
  if (f->body.len == 0) return; /* a heartbeat */
  uam_reader r = uam_reader_of(f->body.ptr, f->body.len);
  uint64_t code = uam_read_descriptor(&r);
  bool often = code >= UAM_COMPOSITE_flow &&
               code <= UAM_COMPOSITE_disposition; /* uam_composite_decode checks every field anyway */
  uam_span list = often ? uam_read_outline(&r) : uam_read_value(&r);
  if (e->conn.state == UAM_CONN_DISCARDING && code != UAM_COMPOSITE_close && !r.err) return;
  if (r.err || code < UAM_COMPOSITE_open || code > UAM_COMPOSITE_close) {
    uam_conn_error(e, "amqp:decode-error", "frame with %s", r.err ? r.why : "a body that is no performative");
    return;
  }
  uam_any any;
  uam_fault fault = {0};
  if (uam_composite_decode((uint32_t)code, list, &any, &fault) != 0) {
    uam_conn_error(e, fault.condition, "%s", fault.text);
    return;
  }
  on_performative(e, f->channel, (uint32_t)code, &any, list, (uam_span){r.p, (size_t)(r.end - r.p)});
}

/* One header or frame from the window. False: there is no whole one. */
static bool take_one(uam_engine *e) {
  size_t n = e->in.tail - e->in.head, size = 0;
  if (n == 0) return false; /* there may not even be a window yet */
  const uint8_t *p = e->in.window[e->in.current].data + e->in.head;
  if (e->in.stage == UAM_IN_HEADER) {
    if (n < 8) return false;
    e->in.head += 8;
    if (e->options.trace) uam_frame_trace(e, false, p, 8);
    uam_conn_header(e, p);
    return true;
  }
  uam_frame f;
  uam_fault fault = {0};
  int got = uam_frame_cut(p, n, e->conn.max_frame, &f, &size, &fault);
  if (got == 0) return false;
  if (got < 0) {
    if (e->conn.state == UAM_CONN_DISCARDING || e->in.stage == UAM_IN_SASL)
      uam_conn_fail(e, fault.condition, fault.text);
    else uam_conn_error(e, fault.condition, "%s", fault.text);
    e->in.stage = UAM_IN_DONE; /* where the next frame starts nobody knows */
    return true;
  }
  e->in.head += size;
  if (e->options.trace) uam_frame_trace(e, false, p, size);
  if (e->in.stage == UAM_IN_SASL) uam_sasl_frame(e, &f);
  else on_amqp_frame(e, &f);
  return true;
}

static void take_all(uam_engine *e) {
  while (!e->fatal && e->events.count < UAM_MAX_EVENTS) {
    if (e->in.stage == UAM_IN_DONE) {
      e->in.head = e->in.tail;
      return;
    }
    if (!take_one(e)) return;
    if (uam_buf_len(&e->out.buf) > UAM_OUTPUT_HARD + e->out.offered &&
        !e->out.flooded) { /* messages of ours don't count */
      e->out.flooded = true;
      uam_conn_error(e, "amqp:resource-limit-exceeded", "answers wait unread");
    }
  }
}

/* ---- output: the phases ---- */
static void reverse_dirty_sessions(uam_engine *e) { /* oldest first */
  uam_session *list = e->dirty.sessions;
  e->dirty.sessions = NULL;
  while (list != NULL) {
    uam_session *next = list->next_dirty;
    list->next_dirty = e->dirty.sessions;
    e->dirty.sessions = list;
    list = next;
  }
}

static void flush_sessions_begin(uam_engine *e) {
  reverse_dirty_sessions(e);
  for (uam_session *s = e->dirty.sessions; s != NULL; s = s->next_dirty)
    if (uam_session_flush_begin(e, s))
      for (size_t i = 0; i < s->cap_links; i++)
        if (s->links[i] != NULL) uam_link_dirty(e, s->links[i]);
}

static bool link_waits(const uam_link *l) { return l->want.attach || l->want.detach || l->want.flow || l->out.partial; }

static void flush_links(uam_engine *e) {
  uam_link *list = e->dirty.links, *turned = NULL;
  e->dirty.links = NULL;
  while (list != NULL) { /* oldest first: links attach in the order they were asked for */
    uam_link *next = list->next_dirty;
    list->next_dirty = turned;
    turned = list;
    list = next;
  }
  while (turned != NULL) {
    uam_link *l = turned;
    turned = l->next_dirty;
    l->dirty = false;
    if (uam_link_flush(e, l)) {
      uam_link_free(e, l); /* who waits for its name is in the list, and has another turn */
    } else if (l->state != UAM_LINK_ATTACHED && link_waits(l)) {
      uam_link_dirty(e, l);
    }
  }
}

static void unlist_links_of(uam_engine *e, const uam_session *s) {
  for (uam_link **at = &e->dirty.links; *at != NULL;) {
    if ((*at)->session == s) *at = (*at)->next_dirty;
    else at = &(*at)->next_dirty;
  }
}

/* True when a channel came back. */
static bool flush_sessions_end(uam_engine *e) {
  uam_session *list = e->dirty.sessions;
  bool freed = false;
  e->dirty.sessions = NULL;
  while (list != NULL) {
    uam_session *s = list;
    list = s->next_dirty;
    s->dirty = false;
    if (uam_session_flush_end(e, s)) {
      unlist_links_of(e, s);
      uam_session_free(e, s);
      freed = true;
    } else if (s->want.begin || s->want.end) {
      uam_session_dirty(e, s);
    }
  }
  return freed;
}

static bool speaks_amqp(const uam_engine *e) {
  return e->conn.state == UAM_CONN_OPENED ||
         (e->options.pipeline && (e->conn.state == UAM_CONN_OPEN_SENT || e->conn.state == UAM_CONN_OPEN_PIPE));
}

static void flush_output(uam_engine *e) {
  if (e->fatal || e->conn.lost) return;
  uam_conn_flush_start(e); /* header, SASL, open */
  bool more = speaks_amqp(e);
  for (int turn = 0; turn < 2 && more; turn++) { /* once more for freed channels */
    flush_sessions_begin(e);                     /* begin */
    for (int again = 0; again < 2 && e->dirty.links != NULL && !e->fatal; again++)
      flush_links(e); /* attach, flow, transfer, disposition, detach; once more for freed names */
    more = flush_sessions_end(e) && e->dirty.sessions != NULL; /* flow, disposition, end */
  }
  uam_conn_flush_close(e); /* close */
  uam_conn_heartbeat(e);
}

/* ---- bytes ---- */
static size_t window_size(const uam_engine *e) {
  size_t frame = e->conn.max_frame > UAM_MIN_MAX_FRAME ? e->conn.max_frame : UAM_MIN_MAX_FRAME;
  return frame + UAM_RECV_ROOM;
}

/* Room for the rest of a frame, at least. What is left over moves into the other window while spans of this one are lent. */
static bool make_room(uam_engine *e) {
  uam_window *w = &e->in.window[e->in.current];
  size_t left = e->in.tail - e->in.head;
  if (left == 0 && !e->events.are_lent) e->in.head = e->in.tail = 0;
  if (w->cap >= window_size(e) && w->cap - e->in.head >= window_size(e) && w->cap > e->in.tail) return true;
  if (w->cap >= window_size(e) && left == 0 && w->cap - e->in.tail >= UAM_RECV_ROOM) return true;
  int other = e->events.are_lent ? 1 - e->in.current : e->in.current;
  uam_window *to = &e->in.window[other];
  if (to->cap < window_size(e)) {
    uint8_t *data = uam_mem_realloc(&e->mem, to->data, window_size(e));
    if (data == NULL) {
      uam_oom(e);
      return false;
    }
    to->data = data;
    to->cap = window_size(e);
    w = &e->in.window[e->in.current];
  }
  if (left > 0) memmove(to->data, w->data + e->in.head, left);
  e->in.current = other;
  e->in.head = 0;
  e->in.tail = left;
  return true;
}

uint8_t *uam_recv_window(uam_engine *e, size_t *cap) {
  *cap = 0;
  if (e->fatal || !make_room(e)) return NULL;
  *cap = e->in.window[e->in.current].cap - e->in.tail;
  return e->in.window[e->in.current].data + e->in.tail;
}

static int commit_received(uam_engine *e, size_t n) {
  uam_event_reset(e);
  if (n > 0 && n > e->in.window[e->in.current].cap - e->in.tail)
    return uam_refuse(e, UAM_ERR_ARG, "more bytes than the window had");
  e->in.tail += n;
  if (n > 0) e->conn.last_received = e->now;
  take_all(e);
  return e->fatal;
}

int uam_recv_commit(uam_engine *e, size_t n, uint64_t now) {
  if (e->fatal) return e->fatal;
  e->now = now;
  int rc = commit_received(e, n);
  if (n == 0) uam_conn_check_idle(e);
  flush_output(e);
  return rc != UAM_OK ? rc : e->fatal;
}

const uint8_t *uam_send_window(uam_engine *e, size_t *n) {
  flush_output(e);
  *n = e->fatal ? 0 : uam_buf_len(&e->out.buf);
  return *n > 0 ? e->out.buf.data + e->out.buf.head : NULL;
}

static int commit_sent(uam_engine *e, size_t n) {
  if (n > uam_buf_len(&e->out.buf)) return uam_refuse(e, UAM_ERR_ARG, "more bytes than the window had");
  uam_buf_consume(&e->out.buf, n);
  if (e->out.offered > uam_buf_len(&e->out.buf)) e->out.offered = uam_buf_len(&e->out.buf);
  e->out.committed += n;
  if (n > 0) e->conn.last_sent = e->now;
  return UAM_OK;
}

int uam_send_commit(uam_engine *e, size_t n, uint64_t now) {
  if (e->fatal) return e->fatal;
  e->now = now;
  int rc = commit_sent(e, n);
  if (n == 0) flush_output(e);
  return rc != UAM_OK ? rc : e->fatal;
}

size_t uam_events(uam_engine *e, const uam_event **events) {
  size_t from = e->events.resolved;
  uam_event_resolve(e);
  *events = e->events.queue != NULL ? e->events.queue + from : NULL;
  return e->events.count - from;
}

int uam_flushed(uam_engine *e, uint64_t total) {
  if (e->fatal) return e->fatal;
  if (total < e->out.flushed || total > e->out.committed)
    return uam_refuse(e, UAM_ERR_ARG, "flushed %llu", (unsigned long long)total);
  if (total == e->out.flushed) return UAM_OK;
  e->out.flushed = total;
  uam_delivery_sent(e);
  return e->fatal;
}

int uam_step(uam_engine *e, uam_io *io) {
  if (e->fatal) return e->fatal;
  e->now = io->now;
  int rc = commit_sent(e, io->sent);
  if (rc != UAM_OK) return rc;
  uam_event_reset(e);
  rc = uam_flushed(e, io->flushed);
  if (rc != UAM_OK) return rc;
  rc = commit_received(e, io->received);
  if (rc != UAM_OK) return rc;
  if (io->dry && io->received == 0) uam_conn_check_idle(e);
  flush_output(e);
  io->received = io->sent = 0;
  io->base = e->in.window[e->in.current].data;
  io->n_events = uam_events(e, &io->events);
  io->in = uam_recv_window(e, &io->in_cap);
  io->out_len = uam_buf_len(&e->out.buf);
  io->out = io->out_len > 0 ? e->out.buf.data + e->out.buf.head : NULL;
  io->deadline = io->n_events >= UAM_MAX_EVENTS ? e->now : uam_deadline(e);
  return e->fatal;
}

int uam_lost(uam_engine *e) {
  if (e->fatal) return e->fatal;
  if (e->conn.lost) return UAM_OK;
  e->conn.lost = true;
  uam_conn_settle_all(e);
  if (e->conn.state != UAM_CONN_END) {
    uam_event_state(e, UAM_EVENT_CONN_STATE, 0, e->conn.state, UAM_CONN_END);
    e->conn.state = UAM_CONN_END;
    e->in.stage = UAM_IN_DONE;
  }
  uam_event_push(e, UAM_EVENT_LOST, 0);
  return e->fatal;
}
