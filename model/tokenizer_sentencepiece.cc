/* tokenizer_sentencepiece: the bridge to libsentencepiece, the only C++ here; no exception leaves it. */
#include "model/tokenizer_sentencepiece.h"

#include <cstdlib>
#include <cstring>
#include <exception>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>
#include <string>
#include <unordered_map>
#include <vector>

struct sentencepiece_model {
    sentencepiece::SentencePieceProcessor processor;
};

namespace {

class documents_iterator : public sentencepiece::SentenceIterator {
  public:
    documents_iterator(const char *const *documents, size_t count) : documents_(documents), count_(count) { load(); }
    bool done() const override { return next_ >= count_; }
    void Next() override {
        next_++;
        load();
    }
    const std::string &value() const override { return value_; }
    sentencepiece::util::Status status() const override { return {}; }

  private:
    void load() {
        if (next_ < count_) value_ = documents_[next_];
    }
    const char *const *documents_;
    size_t count_, next_ = 0;
    std::string value_;
};

char *message(const sentencepiece::util::Status &status) {
    return status.ok() ? nullptr : strdup(status.ToString().c_str());
}

/* Runs what may throw (bad_alloc at least) and turns it into a message. */
template <typename Function> char *guarded(Function function) {
    try {
        return function();
    } catch (const std::bad_alloc &) {
        return strdup(SENTENCEPIECE_NO_MEMORY);
    } catch (const std::exception &e) {
        return strdup(e.what());
    } catch (...) {
        return strdup("SentencePiece failed without a message");
    }
}

char *copied(const std::string &from, char **to) {
    *to = static_cast<char *>(malloc(from.size() + 1));
    if (!*to) return strdup(SENTENCEPIECE_NO_MEMORY);
    memcpy(*to, from.c_str(), from.size() + 1);
    return nullptr;
}

char *append(const std::vector<int> &from, int32_t **ids, size_t *count, size_t *capacity) {
    if (*count + from.size() > *capacity) {
        size_t wanted = 2 * (*count + from.size());
        void *grown = realloc(*ids, wanted * sizeof(int32_t));
        if (!grown) return strdup(SENTENCEPIECE_NO_MEMORY);
        *ids = static_cast<int32_t *>(grown);
        *capacity = wanted;
    }
    if (!from.empty()) memcpy(*ids + *count, from.data(), from.size() * sizeof(int32_t));
    *count += from.size();
    return nullptr;
}

} // namespace

char *sentencepiece_train(const struct sentencepiece_option *options, int vocab_size, const char *const *documents,
                          size_t count, char **model, size_t *size) {
    return guarded([&] {
        std::unordered_map<std::string, std::string> settings{{"vocab_size", std::to_string(vocab_size)}};
        for (; options->name; options++) settings[options->name] = options->value;
        documents_iterator iterator(documents, count);
        std::string serialized;
        char *failure = message(sentencepiece::SentencePieceTrainer::Train(settings, &iterator, &serialized));
        if (failure) return failure;
        *size = serialized.size();
        return copied(serialized, model);
    });
}

char *sentencepiece_load(struct sentencepiece_model **out, const void *data, size_t size) {
    return guarded([&] {
        auto *model = new sentencepiece_model;
        char *failure = message(model->processor.LoadFromSerializedProto({static_cast<const char *>(data), size}));
        if (failure)
            delete model;
        else
            *out = model;
        return failure;
    });
}

void sentencepiece_free(struct sentencepiece_model *model) { delete model; }

size_t sentencepiece_size(const struct sentencepiece_model *model) { return model->processor.GetPieceSize(); }

const char *sentencepiece_text(const struct sentencepiece_model *model, int id) {
    return model->processor.IdToPiece(id).c_str();
}

int sentencepiece_kinds(const struct sentencepiece_model *model, int id) {
    const auto &p = model->processor;
    return (p.IsControl(id) ? SENTENCEPIECE_CONTROL : 0) | (p.IsUnknown(id) ? SENTENCEPIECE_UNKNOWN : 0) |
           (p.IsUnused(id) ? SENTENCEPIECE_UNUSED : 0) | (p.IsByte(id) ? SENTENCEPIECE_BYTE : 0);
}

char *sentencepiece_encode(const struct sentencepiece_model *model, const char *text, size_t length, int32_t **ids,
                           size_t *count, size_t *capacity) {
    return guarded([&] {
        std::vector<int> encoded;
        char *failure = message(model->processor.Encode({text, length}, &encoded));
        return failure ? failure : append(encoded, ids, count, capacity);
    });
}

char *sentencepiece_decode(const struct sentencepiece_model *model, const int32_t *ids, size_t count, char **text) {
    return guarded([&] {
        std::string decoded;
        char *failure = message(model->processor.Decode(std::vector<int>(ids, ids + count), &decoded));
        return failure ? failure : copied(decoded, text);
    });
}
