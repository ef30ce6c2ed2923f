// What the calls that a pickle asks for would have made.
#pragma once

#include <string_view>

#include "client/formats/pickle_value.h"

namespace ckpt::formats {

// The value that calling `callable` (in Python: callable(*arguments)) would give. Calls of anything but the known names
// with arguments as torch.save writes them give a kRefused that names the type.
PickleValue CallResult(PickleGraph& graph, PickleRef callable, PickleRef arguments);

// What BUILD does: gives the object its state. An object that takes no such state becomes a kRefused.
void SetObjectState(PickleGraph& graph, PickleRef object, PickleRef state);

// The value that a persistent id stands for: a storage, or a kRefused.
PickleValue PersistentObject(PickleGraph& graph, PickleRef id);

}  // namespace ckpt::formats
