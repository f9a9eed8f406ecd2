/* delivery.c - transfers and dispositions (§2.6.12, §2.7.5, §2.7.6): splitting what we send and joining what we receive,
 * the rings of unsettled deliveries, outcomes in and out. The hot path of the engine: transfer frames are written by hand
 * here, in the one form we use, everything else goes by the tables. */
#include "uam_int.h"

#define TRANSFER_HEAD 64u /* the most that stands in front of a payload */

typedef struct message {
  uam_span part[2]; /* a section header of our making, then the caller's bytes */
} message;

static uint8_t *put_uint(uint8_t *p, uint32_t v) {
  if (v == 0) {
    *p++ = 0x43;
  } else if (v < 256) {
    *p++ = 0x52;
    *p++ = (uint8_t)v;
  } else {
    *p++ = 0x70;
    store_be32(p, v);
    p += 4;
  }
  return p;
}

typedef struct transfer {
  uint32_t id, format;
  bool settled, more, aborted;
} transfer;

/* Frame header and performative up to the payload. Returns past its end; the size is filled in by the caller. */
static uint8_t *put_transfer_head(const uam_engine *e, uint8_t *frame, const uam_link *l, const transfer *t) {
  static const uint8_t start[] = {2, 0, 0, 0, 0x00, 0x53, UAM_COMPOSITE_transfer, 0xc0, 0, 6};
  memcpy(frame + 4, start, sizeof start);
  store_be16(frame + 6, l->session->channel);
  uint8_t *p = frame + 14;
  p = put_uint(p, l->handle);
  p = put_uint(p, t->id);
  *p++ = 0xa0; /* delivery-tag */
  *p++ = l->out.tag_len;
  memcpy(p, l->out.tag, l->out.tag_len);
  p += l->out.tag_len;
  p = put_uint(p, t->format);
  *p++ = t->settled ? 0x41 : 0x42;
  *p++ = t->more ? 0x41 : 0x42;
  if (t->aborted) {
    memcpy(p, "\x40\x40\x40\x41", 4);
    p += 4;
    frame[13] = 10;
  }
  if (e->options.all_fields) {
    size_t absent = (size_t)(UAM_COUNT_transfer - frame[13]);
    memset(p, 0x40, absent);
    p += absent;
    frame[13] = UAM_COUNT_transfer;
  }
  frame[12] = (uint8_t)(p - (frame + 13));
  return p;
}

static void count_transfer(uam_session *s) {
  s->out.next_id++;
  s->out.remote_window--;
}

static size_t take(message *m, uint8_t *to, size_t n) {
  size_t done = 0;
  for (int i = 0; i < 2 && done < n; i++) {
    size_t k = m->part[i].len < n - done ? m->part[i].len : n - done;
    if (k == 0) continue;
    memcpy(to + done, m->part[i].ptr, k);
    m->part[i].ptr += k;
    m->part[i].len -= k;
    done += k;
  }
  return done;
}

/* Writes frames of one delivery while the session window lasts. True when its last one is written. */
static bool put_frames(uam_engine *e, uam_link *l, transfer *t, message *m) {
  uam_session *s = l->session;
  uint32_t max = e->conn.remote_max_frame < e->conn.max_frame ? e->conn.remote_max_frame : e->conn.max_frame;
  while (s->out.remote_window > 0) {
    size_t left = m->part[0].len + m->part[1].len;
    size_t chunk = left < max - TRANSFER_HEAD ? left : max - TRANSFER_HEAD;
    if (!uam_buf_reserve(&e->out.buf, &e->mem, TRANSFER_HEAD + (left < 8u * max ? left : chunk))) {
      uam_oom(e);
      return false;
    }
    t->more = chunk < left;
    uint8_t *frame = e->out.buf.data + e->out.buf.tail;
    uint8_t *p = put_transfer_head(e, frame, l, t);
    if (t->more) chunk = max - (size_t)(p - frame); /* fill it to the brim */
    if (chunk >= left) {
      chunk = left;
      t->more = false;
      p = put_transfer_head(e, frame, l, t);
    }
    p += take(m, p, chunk);
    size_t size = (size_t)(p - frame);
    store_be32(frame, (uint32_t)size);
    e->out.buf.tail += size;
    e->out.offered += size;
    count_transfer(s);
    if (e->options.trace) uam_frame_trace(e, true, frame, size);
    if (!t->more) return true;
  }
  return false;
}

static void delivery_written(uam_engine *e, uam_link *l, bool settled) {
  uam_ring *r = settled ? &l->sent : &l->unsettled;
  if (r->count > 0) uam_ring_at(r, r->count - 1)->end = out_total(e);
}

static bool keep_rest(uam_engine *e, uam_link *l, const transfer *t, const message *m) {
  l->out.partial = true;
  l->out.id = t->id;
  l->out.format = t->format;
  l->out.settled = t->settled;
  l->out.rest.head = l->out.rest.tail = 0;
  bool ok = uam_buf_put(&l->out.rest, &e->mem, m->part[0].ptr, m->part[0].len) &&
            uam_buf_put(&l->out.rest, &e->mem, m->part[1].ptr, m->part[1].len);
  if (!ok) uam_oom(e);
  return ok;
}

/* The delivery-tag of the next delivery: the caller's, or our counter, little-endian. */
static void set_tag(uam_link *l, const uint8_t *given) {
  l->out.tag_len = given != NULL ? UAM_TAG_BYTES : 4;
  if (given != NULL) {
    memcpy(l->out.tag, given, UAM_TAG_BYTES);
    return;
  }
  l->out.last_tag++;
  for (int i = 0; i < 4; i++) l->out.tag[i] = (uint8_t)(l->out.last_tag >> (8 * i));
}

/* Sends one delivery, or starts it. Credit and window have been looked at. */
static bool start_delivery(uam_engine *e, uam_link *l, message *m, uint32_t format, bool settled) {
  uam_session *s = l->session;
  transfer t = {.id = s->out.next_delivery_id, .format = format, .settled = settled};
  uam_ring *r = settled ? &l->sent : &l->unsettled;
  if (!uam_ring_push(r, &e->mem, t.id, UAM_FOREVER)) {
    uam_oom(e);
    return false;
  }
  if (settled) e->bounds.presettled++;
  s->out.next_delivery_id++;
  l->delivery_count++;
  l->credit--;
  if (put_frames(e, l, &t, m)) delivery_written(e, l, settled);
  else if (!e->fatal) keep_rest(e, l, &t, m);
  return !e->fatal;
}

/* The peer must be told, or it would wait for the rest (§2.6.12): with a frame of its own, so when the window has room. */
static void abort_partial(uam_engine *e, uam_link *l) {
  l->out.aborted = true;
  uam_buf_free(&l->out.rest, &e->mem);
  uam_link_dirty(e, l);
}

static void put_abort(uam_engine *e, uam_link *l) {
  transfer t = {.id = l->out.id, .format = l->out.format, .settled = l->out.settled, .aborted = true};
  if (!uam_buf_reserve(&e->out.buf, &e->mem, TRANSFER_HEAD)) {
    uam_oom(e);
    return;
  }
  uint8_t *frame = e->out.buf.data + e->out.buf.tail;
  size_t size = (size_t)(put_transfer_head(e, frame, l, &t) - frame);
  store_be32(frame, (uint32_t)size);
  e->out.buf.tail += size;
  count_transfer(l->session);
  if (e->options.trace) uam_frame_trace(e, true, frame, size);
}

void uam_delivery_resume(uam_engine *e, uam_link *l) {
  if (!l->out.partial || l->session->out.remote_window == 0) return;
  if (l->out.aborted) {
    put_abort(e, l);
    l->out.partial = l->out.aborted = false;
    uam_link_event_credit(e, l, 0);
    return;
  }
  transfer t = {.id = l->out.id, .format = l->out.format, .settled = l->out.settled};
  message m = {.part = {uam_buf_span(&l->out.rest), {NULL, 0}}};
  bool done = put_frames(e, l, &t, &m);
  uam_buf_consume(&l->out.rest, uam_buf_len(&l->out.rest) - m.part[0].len);
  if (!done) return;
  l->out.partial = false;
  delivery_written(e, l, t.settled);
  uam_buf_free(&l->out.rest, &e->mem);
  uam_link_event_credit(e, l, 0); /* the link takes messages again */
}

static void drop_joined(uam_engine *e, uam_link *l) {
  e->bounds.joining -= uam_buf_len(&l->in.buf);
  uam_buf_free(&l->in.buf, &e->mem);
}

void uam_delivery_abandon(uam_engine *e, uam_link *l) {
  l->out.partial = l->out.aborted = false;
  uam_buf_free(&l->out.rest, &e->mem);
  l->in.receiving = false;
  drop_joined(e, l);
}

/* ---- deliveries settled at birth leave when the kernel has them ---- */
static void sent_up_to(uam_engine *e, uam_link *l) {
  static const uam_span none;
  uam_ring *r = &l->sent;
  while (r->count > 0) {
    uam_delivery *d = uam_ring_at(r, 0);
    if (!d->settled_run && d->end > e->out.flushed) return;
    if (!d->settled_run) {
      uam_event_settled(e, l->id, d->id, d->id, UAM_OUT_SENT, UAM_FLAG_SETTLED, none);
      e->bounds.presettled--;
      uam_ring_gone(r, 0);
    }
    uam_ring_trim(r);
  }
}

void uam_delivery_sent(uam_engine *e) {
  for (size_t i = 0; e->bounds.presettled > 0 && i < e->ids.cap_links; i++)
    if (e->ids.links[i] != NULL) sent_up_to(e, e->ids.links[i]);
}

/* ---- receiving ---- */
/* After all that are open, and within half the circle of ids from the oldest: else there is no order (RFC 1982). */
static bool follows(const uam_ring *r, uint32_t id) {
  return r->count == 0 || (seq_lt(uam_ring_at(r, 0)->id, id) && seq_lt(uam_ring_at(r, r->count - 1)->id, id));
}

/* A client lets its broker overrun what it was ever granted by as much as one grant: RabbitMQ 3.10 adds each FLOW to deliveries
 * of its own that are still under way. Memory stays bounded by twice what was asked for. */
static bool without_credit(const uam_engine *e, const uam_link *l) {
  int32_t over = seq_diff(l->delivery_count, l->granted);
  return over >= 0 && (e->role == UAM_SERVER || (uint32_t)over >= l->most_credit);
}

static bool start_receiving(uam_engine *e, uam_link *l, const uam_p_transfer *p) {
  if (!UAM_HAS(*p, transfer, delivery_id) || p->delivery_tag.len > UAM_MAX_TAG) {
    uam_session_error(e, l->session, "amqp:invalid-field",
                      "transfer.delivery-id or delivery-tag of a first frame is wrong");
    return false;
  }
  if (without_credit(e, l)) {
    uam_link_error(e, l, "amqp:link:transfer-limit-exceeded", "transfer %lu came without credit",
                   (unsigned long)p->delivery_id);
    return false;
  }
  if (l->unsettled.live >= UAM_MAX_UNSETTLED) {
    uam_link_error(e, l, "amqp:resource-limit-exceeded", "more than %u unsettled deliveries", UAM_MAX_UNSETTLED);
    return false;
  }
  if (!follows(&l->unsettled, p->delivery_id)) {
    uam_session_error(e, l->session, "amqp:invalid-field", "transfer.delivery-id %lu does not follow",
                      (unsigned long)p->delivery_id);
    return false;
  }
  if (l->credit > 0) l->credit--;
  l->delivery_count++;
  l->in.receiving = true;
  l->in.settled = l->in.taken_back = false;
  l->in.id = p->delivery_id;
  l->in.format = p->message_format;
  l->in.tag_len = (uint32_t)p->delivery_tag.len;
  if (p->delivery_tag.len > 0) memcpy(l->in.tag, p->delivery_tag.ptr, p->delivery_tag.len);
  l->in.buf.head = l->in.buf.tail = 0;
  return true;
}

/* Bytes that a delivery on this link may have: what our attach announced, or the engine's own limit. */
static uint64_t message_limit(const uam_engine *e, const uam_link *l) {
  uint64_t announced = l->max_message != 0 ? l->max_message : e->options.max_message;
  return announced < UAM_MAX_MESSAGE ? announced : UAM_MAX_MESSAGE;
}

/* A joined message must outlive its link until the batch is over. */
static bool lend(uam_engine *e, uam_link *l) {
  if (e->events.n_lent == e->events.cap_lent) {
    size_t cap = e->events.cap_lent ? e->events.cap_lent * 2 : 8;
    uam_buf *grown = uam_mem_realloc(&e->mem, e->events.lent, cap * sizeof *grown);
    if (grown == NULL) return false;
    e->events.lent = grown;
    e->events.cap_lent = cap;
  }
  e->events.lent[e->events.n_lent++] = l->in.buf;
  l->in.buf = (uam_buf){0};
  return true;
}

static void deliver(uam_engine *e, uam_link *l, uam_span whole, uam_span tag, bool joined) {
  if (!l->in.settled && !uam_ring_push(&l->unsettled, &e->mem, l->in.id, 0)) {
    uam_oom(e);
    return;
  }
  uam_event *ev = uam_event_push(e, UAM_EVENT_MESSAGE, l->id);
  if (ev == NULL) return;
  ev->first = l->in.id;
  ev->last = l->in.format;
  ev->tag_length = (uint32_t)tag.len;
  ev->length = whole.len;
  ev->flags = (uint16_t)((l->in.settled ? UAM_FLAG_SETTLED : 0) | (joined ? UAM_FLAG_ADDRESS : 0));
  uint64_t base = joined ? 0 : (uint64_t)(uintptr_t)e->in.window[e->in.current].data;
  if (whole.len > 0) ev->offset = (uint64_t)(uintptr_t)whole.ptr - base;
  if (tag.len > 0) ev->tag_offset = (uint64_t)(uintptr_t)tag.ptr - base;
}

static void finish(uam_engine *e, uam_link *l, const uam_p_transfer *p, uam_span payload, bool single) {
  l->in.receiving = false;
  if (p->aborted || l->in.taken_back) {
    drop_joined(e, l);
    uam_link_event_credit(e, l, 0); /* it took one, and no message tells so */
    return;
  }
  if (single) {
    deliver(e, l, payload, p->delivery_tag, false);
    return;
  }
  /* the tag goes behind the payload: one buffer carries both */
  size_t n = uam_buf_len(&l->in.buf);
  e->bounds.joining -= n;
  if (!uam_buf_put(&l->in.buf, &e->mem, l->in.tag, l->in.tag_len) || !lend(e, l)) {
    uam_oom(e);
    return;
  }
  const uint8_t *at = e->events.lent[e->events.n_lent - 1].data;
  deliver(e, l, (uam_span){at, n}, (uam_span){at + n, l->in.tag_len}, true);
}

static bool join(uam_engine *e, uam_link *l, uam_span payload) {
  if (e->bounds.joining + payload.len > UAM_MAX_JOINING) {
    uam_link_error(e, l, "amqp:resource-limit-exceeded", "messages in parts of more than %u bytes in all",
                   UAM_MAX_JOINING);
    return false;
  }
  if (!uam_buf_put(&l->in.buf, &e->mem, payload.ptr, payload.len)) {
    uam_oom(e);
    return false;
  }
  e->bounds.joining += payload.len;
  return true;
}

void uam_delivery_on_transfer(uam_engine *e, uam_link *l, const uam_p_transfer *p, uam_span payload) {
  if (l->state != UAM_LINK_ATTACHED) return; /* we have detached: discarded */
  if (l->sender) {
    uam_session_error(e, l->session, "amqp:not-allowed", "transfer on handle %lu, whose sender is this end",
                      (unsigned long)l->handle);
    return;
  }
  bool first = !l->in.receiving;
  if (first && !start_receiving(e, l, p)) return;
  if (!first && UAM_HAS(*p, transfer, delivery_id) && p->delivery_id != l->in.id) {
    uam_session_error(e, l->session, "amqp:invalid-field", "transfer.delivery-id %lu inside delivery %lu",
                      (unsigned long)p->delivery_id, (unsigned long)l->in.id);
    return;
  }
  l->in.settled |= p->settled;
  bool last = !p->more || p->aborted;
  bool single = first && last;
  if (!p->aborted && uam_buf_len(&l->in.buf) + payload.len > message_limit(e, l)) {
    uam_link_error(e, l, "amqp:link:message-size-exceeded", "delivery %lu is larger than max-message-size %lu",
                   (unsigned long)l->in.id, (unsigned long)message_limit(e, l));
    return;
  }
  if (!single && !p->aborted && !l->in.taken_back && !join(e, l, payload)) return;
  if (last) finish(e, l, p, payload, single);
}

/* ---- dispositions out ---- */
static void put_disposition(uam_engine *e, uam_session *s) {
  static const uint8_t bare[4] = {0x00, 0x53, 0x24, 0x45};
  uint8_t small[4];
  uam_p_disposition p = {.set = UAM_SET(disposition, role) | UAM_SET(disposition, first) | UAM_SET(disposition, last) |
                                UAM_SET(disposition, settled)};
  p.role = s->disposition.role;
  p.first = s->disposition.first;
  p.last = s->disposition.last;
  p.settled = s->disposition.settled;
  s->disposition.open = false;
  if (uam_buf_len(&s->disposition.state) > 0) {
    p.set |= UAM_SET(disposition, state);
    p.state = uam_buf_span(&s->disposition.state);
  }
  if (p.state.len > 256 && uam_frame_size(e, UAM_COMPOSITE_disposition, &p) > e->conn.remote_max_frame) {
    memcpy(small, bare, sizeof small); /* the outcome without its explanation */
    small[2] = p.state.ptr[2];
    p.state = (uam_span){small, sizeof small};
  }
  uam_frame_put(e, 0, s->channel, UAM_COMPOSITE_disposition, &p);
}

void uam_delivery_flush(uam_engine *e, uam_session *s) {
  bool up = s->state == UAM_SESSION_MAPPED;
  if (s->disposition.open && up && e->conn.state == UAM_CONN_OPENED) put_disposition(e, s);
}

/* Holds it open, extending what is held if it continues it. */
static void hold_disposition(uam_engine *e, uam_session *s, bool role, uint32_t first, uint32_t last, bool settled,
                             uam_span state) {
  uam_span held = uam_buf_span(&s->disposition.state);
  bool same = s->disposition.open && s->disposition.role == role && s->disposition.settled == settled &&
              s->disposition.last + 1 == first && held.len == state.len &&
              (state.len == 0 || memcmp(held.ptr, state.ptr, state.len) == 0);
  if (!same) {
    uam_delivery_flush(e, s);
    s->disposition.open = true;
    s->disposition.role = role;
    s->disposition.settled = settled;
    s->disposition.first = first;
    s->disposition.state.head = s->disposition.state.tail = 0;
    if (!uam_buf_put(&s->disposition.state, &e->mem, state.ptr, state.len)) uam_oom(e);
  }
  s->disposition.last = last;
  uam_session_dirty(e, s);
}

/* ---- dispositions in ---- */
typedef struct received_disposition {
  uint32_t code;
  bool settled, answer;
  uam_span state;
} received_disposition;

/* To a peer that left it to us to settle what it said (§2.6.12): done. A receiver names the outcome, as always. */
static void answer(uam_engine *e, uam_link *l, uint32_t first, uint32_t last, uint32_t code) {
  const uint8_t outcome[4] = {0x00, 0x53, (uint8_t)code, 0x45};
  bool named = !l->sender || e->options.all_fields;
  hold_disposition(e, l->session, !l->sender, first, last, true, (uam_span){outcome, named ? sizeof outcome : 0});
}

/* The sender is done with the delivery that has come in part: what it took back is no message when its last frame comes. */
static void settle_incoming(uam_engine *e, uam_link *l, uint32_t first, uint32_t last, const received_disposition *v) {
  if (!l->in.receiving || seq_lt(l->in.id, first) || seq_lt(last, l->in.id) || l->in.settled || l->in.taken_back)
    return;
  if (v->code >= UAM_OUT_REJECTED && v->code <= UAM_OUT_MODIFIED) {
    l->in.taken_back = true;
    drop_joined(e, l);
  } else {
    l->in.settled = true;
  }
  if (v->answer) answer(e, l, l->in.id, l->in.id, v->code);
}

/* Deliveries of one link inside first..last: runs of them leave as one event each. */
static void settle_range(uam_engine *e, uam_link *l, uint32_t first, uint32_t last, const received_disposition *v) {
  uam_ring *r = &l->unsettled;
  bool run = false;
  uint32_t from = 0, to = 0;
  for (size_t i = uam_ring_next(r, uam_ring_find(r, first)); i < r->count; i = uam_ring_next(r, i)) {
    uam_delivery *d = uam_ring_at(r, i);
    if (seq_lt(last, d->id)) break;
    if (l->out.partial && l->out.id == d->id && d->end == UAM_FOREVER) abort_partial(e, l); /* decided before its end */
    uam_ring_gone(r, i);
    if (run && d->id != to + 1) {
      uam_event_settled(e, l->id, from, to, v->code, v->settled ? UAM_FLAG_SETTLED : 0, v->state);
      if (v->answer) answer(e, l, from, to, v->code);
      run = false;
    }
    if (!run) from = d->id;
    to = d->id;
    run = true;
  }
  if (run) {
    uam_event_settled(e, l->id, from, to, v->code, v->settled ? UAM_FLAG_SETTLED : 0, v->state);
    if (v->answer) answer(e, l, from, to, v->code);
  }
  uam_ring_trim(r);
}

static uint32_t outcome_of(uam_span state) {
  if (state.len == 0) return UAM_OUT_NONE;
  uam_reader r = uam_reader_of(state.ptr, state.len);
  uint64_t code = uam_read_descriptor(&r);
  return !r.err && code >= UAM_OUT_RECEIVED && code <= UAM_OUT_MODIFIED ? (uint32_t)code : UAM_OUT_OTHER;
}

void uam_delivery_on_disposition(uam_engine *e, uam_session *s, const uam_p_disposition *p) {
  uint32_t last = UAM_HAS(*p, disposition, last) ? p->last : p->first;
  if (seq_lt(last, p->first)) {
    uam_session_error(e, s, "amqp:invalid-field", "disposition.last %lu < first %lu", (unsigned long)last,
                      (unsigned long)p->first);
    return;
  }
  received_disposition v = {.code = outcome_of(p->state), .settled = p->settled, .state = p->state};
  bool terminal = v.code >= UAM_OUT_ACCEPTED && v.code <= UAM_OUT_MODIFIED;
  bool taken_back = terminal && !p->role && v.code != UAM_OUT_ACCEPTED; /* RabbitMQ, when a consumer took too long */
  if (!p->settled && !(terminal && p->role) && !taken_back) return;     /* on its way, not there */
  v.answer = !p->settled;
  if (v.code == UAM_OUT_ACCEPTED || v.code == UAM_OUT_NONE) v.state = (uam_span){NULL, 0};
  uam_event_new_state(e);
  for (size_t i = 0; i < s->cap_links; i++) {
    uam_link *l = s->links[i];
    if (l == NULL || l->sender != p->role) continue;
    if (l->unsettled.count > 0) settle_range(e, l, p->first, last, &v);
    if (!l->sender) settle_incoming(e, l, p->first, last, &v);
  }
}

/* ---- public ---- */
static size_t section_head(uint8_t *h, uint32_t n) {
  h[0] = 0x00;
  h[1] = 0x53;
  h[2] = 0x75;
  if (n < 256) {
    h[3] = 0xa0;
    h[4] = (uint8_t)n;
    return 5;
  }
  h[3] = 0xb0;
  store_be32(h + 4, n);
  return 8;
}

static bool has_room(const uam_engine *e, const uam_link *l) {
  return l->credit > 0 && !l->out.partial && l->session->out.remote_window > 0 &&
         uam_buf_len(&e->out.buf) < e->options.output_cap && l->unsettled.live < UAM_MAX_UNSETTLED &&
         l->sent.live < UAM_MAX_UNSETTLED;
}

int64_t uam_send_messages(uam_engine *e, uint32_t link, const uint8_t *buf, const uint32_t *lens, size_t n,
                          uint32_t message_format, int flags, uint32_t *first_id) {
  if (e->fatal) return e->fatal;
  uam_link *l = uam_link_by_id(e, link);
  if (l == NULL || !l->sender || l->want.detach || l->state >= UAM_LINK_DETACH_SENT)
    return uam_refuse(e, UAM_ERR_STATE, "no such sending link");
  *first_id = l->session->out.next_delivery_id;
  bool up =
      l->state == UAM_LINK_ATTACHED && l->session->state == UAM_SESSION_MAPPED && e->conn.state == UAM_CONN_OPENED;
  size_t i = 0;
  for (; up && i < n && has_room(e, l); i++) {
    uint8_t head[8];
    size_t tag = (flags & UAM_SEND_TAGGED) ? UAM_TAG_BYTES : 0;
    if (lens[i] < tag) {
      if (i > 0) break;
      return uam_refuse(e, UAM_ERR_ARG, "%lu bytes are no delivery-tag", (unsigned long)lens[i]);
    }
    uint32_t len = lens[i] - (uint32_t)tag;
    size_t head_len = (flags & UAM_SEND_DATA) ? section_head(head, len) : 0;
    if (l->remote_max_message != 0 && (uint64_t)len + head_len > l->remote_max_message) {
      if (i > 0) break;
      return uam_refuse(e, UAM_ERR_SIZE, "message of %lu bytes > the peer's max-message-size %llu",
                        (unsigned long)(len + head_len), (unsigned long long)l->remote_max_message);
    }
    set_tag(l, tag > 0 ? buf : NULL);
    message m = {.part = {{head, head_len}, {len > 0 ? buf + tag : NULL, len}}};
    if (lens[i] > 0) buf += lens[i]; /* buf may be NULL when all are empty */
    if (!start_delivery(e, l, &m, message_format, (flags & UAM_SEND_SETTLED) != 0)) return e->fatal;
  }
  return (int64_t)i;
}

int uam_settle(uam_engine *e, uint32_t link, uint32_t first, uint32_t last, int settled, const uint8_t *state,
               size_t n) {
  if (e->fatal) return e->fatal;
  uam_link *l = uam_link_by_id(e, link);
  if (l == NULL || l->state != UAM_LINK_ATTACHED || l->session->state != UAM_SESSION_MAPPED)
    return uam_refuse(e, UAM_ERR_STATE, "no such attached link");
  if (n > UAM_MAX_STATE || seq_lt(last, first))
    return uam_refuse(e, UAM_ERR_ARG, "state of %lu bytes, or last < first", (unsigned long)n);
  uam_ring *r = &l->unsettled;
  size_t found = 0;
  uam_span what = {state, n};
  for (size_t i = uam_ring_next(r, uam_ring_find(r, first)); i < r->count; i = uam_ring_next(r, i + 1)) {
    uam_delivery *d = uam_ring_at(r, i);
    if (seq_lt(last, d->id)) break;
    found++;
    bool half = l->sender && l->out.partial && l->out.id == d->id;
    if (half && settled) abort_partial(e, l);
    else hold_disposition(e, l->session, !l->sender, d->id, d->id, settled != 0, what);
    if (settled) uam_ring_gone(r, i);
  }
  uam_ring_trim(r);
  if (found == 0) return uam_refuse(e, UAM_ERR_STATE, "no such delivery is unsettled");
  return e->fatal;
}
