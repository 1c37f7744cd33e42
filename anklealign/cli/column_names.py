"""Usual names of the columns of tables of photos, folded: English, German, French, Hungarian."""

from anklealign.ingest.table_files import PICTURE_COLUMNS

LABEL_NAMES = {
    "choice", "choices", "label", "labels", "class", "class name", "classname", "category",
    "target", "species", "breed", "diagnosis", "diagnozis", "cimke", "osztaly", "kategoria",
    "dx", "label name", "class label", "ground truth", "gt", "finding labels", "diagnosis code",
    "klasse", "kategorie", "diagnose", "befund", "classe", "categorie", "etiquette", "espece",
    "consensus", "consensus label", "final label", "final diagnosis", "gold standard",
}  # fmt: skip
GROUP_NAMES = {
    "group", "group id", "subject", "subject id", "person", "person id", "patient", "patient id",
    "patientid", "subjectid", "participant id", "participant", "animal", "animal id", "lesion id",
    "case id", "individual", "individual id", "specimen id", "scene id", "video id", "szemely",
    "paciens", "beteg", "resztvevo", "alany", "patienten id", "patientennummer", "proband", "sujet",
}  # fmt: skip
SPLIT_NAMES = {
    "split", "set", "subset", "partition", "fold", "phase", "usage", "data split", "ml use",
    "data set", "dataset", "is valid", "is val", "is test", "is train", "train test", "mode",
}  # fmt: skip
ANNOTATOR_NAMES = {
    "annotator", "annotator id", "rater", "rater id", "user", "user id", "worker", "worker id",
    "workerid", "labeler", "coder", "reader", "reader id", "expert", "grader", "reviewer",
    "completed by", "doctor",
}  # fmt: skip
CASE_NAMES = {"case", "scan", "scan id", "study", "study id", "exam", "exam id", "sample id",
              "visit", "session", "session id", "sequence", "video", "scene"}  # fmt: skip
INDEX_NAMES = {"unnamed: 0", "index"}
# Words in the names of columns that name photos.
PATH_WORDS = PICTURE_COLUMNS - {"x", "y", "a", "b", "source", "target"} | {
    "name", "filepath", "kep", "fajl",
}  # fmt: skip
# Columns that describe a photo; they are not labels if another column may be.
ATTRIBUTES = {
    "age", "patient age", "sex", "gender", "patient gender", "site", "location", "localization",
    "anatom site", "date", "time", "year", "month", "camera", "device", "width", "height", "view",
    "view position", "format", "size", "weight", "country", "city", "source", "dx type", "license",
    "age approx", "anatom site general",
}  # fmt: skip
# Pairs of words for the sides of a body, with a column each.
SIDES = (
    ("left", "right"), ("l", "r"), ("od", "os"), ("bal", "jobb"), ("links", "rechts"),
    ("gauche", "droite"),
)  # fmt: skip
